"""EigenPlaces: CosPlace's network, trained on places seen from several sides.

Paper: Berton, Trivigno, Caputo, Masone, *EigenPlaces: Training Viewpoint Robust Models for Visual
Place Recognition*, ICCV 2023 (arXiv 2308.10832). Repository: https://github.com/gmberton/EigenPlaces,
code MIT, weights as release files (MIT).

Published numbers are recall at 25 m on street views (one scale, no crop); the paper has the tables.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from spatial_retrieval.models.checkpoints.adopted import Adopted
from spatial_retrieval.models.checkpoints.cosplace import recognises, take_over

__all__ = ["KIND", "adopt", "recognises"]

KIND = "eigenplaces"
CARD = {
    "name": "EigenPlaces (or CosPlace, whose files have the same form)",
    "paper": "Berton, Trivigno, Caputo, Masone: EigenPlaces: Training Viewpoint Robust Models for "
    "Visual Place Recognition, ICCV 2023, arXiv 2308.10832",
    "repository": "https://github.com/gmberton/EigenPlaces",
    "code_licence": "MIT",
    "weights_licence": "MIT",
    "training_data": "San Francisco XL",
    "published": {"recall at 25 m": "see the paper's tables; not copied here"},
}


def adopt(state: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> Adopted:
    """Take over an EigenPlaces network; ``meta`` is not read.

    Raises:
        ValueError: if a tensor is unknown, missing, or of another shape.
    """
    return take_over(state, KIND, CARD)
