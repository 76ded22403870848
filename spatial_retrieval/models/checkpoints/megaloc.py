"""MegaLoc: DINOv2, SALAD's aggregation with wider clusters, a linear layer.

Paper: Berton, Masone, *MegaLoc: One Retrieval to Place Them All*, 2025 (arXiv 2502.17237).
Repository: https://github.com/gmberton/MegaLoc, code MIT; weights ``gberton/MegaLoc`` on the
Hugging Face Hub, MIT.

Published: recall at 25 m on street views and mAP on landmarks, in the paper's tables; photographs
resized to 322 × 322 (from memory, unverified), one scale.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from spatial_retrieval.models.checkpoints.adopted import Adopted, Protocol
from spatial_retrieval.models.checkpoints.assemble import assemble
from spatial_retrieval.models.checkpoints.dinov2 import DINO_RULES, DINOv2, dino_arguments
from spatial_retrieval.models.checkpoints.salad import (
    OptimalTransportAggregation,
    aggregation_arguments,
)
from spatial_retrieval.models.checkpoints.tensors import sort_out

__all__ = ["KIND", "adopt", "recognises"]

KIND = "megaloc"
_RULES = (
    *DINO_RULES,
    (r"aggregator\.agg\.(.+)", r"pooling.\1"),
    (r"aggregator\.linear\.(weight|bias)", r"whitening.\1"),
)
CARD = {
    "name": "MegaLoc",
    "paper": "Berton, Masone: MegaLoc: One Retrieval to Place Them All, 2025, arXiv 2502.17237",
    "repository": "https://github.com/gmberton/MegaLoc",
    "code_licence": "MIT",
    "weights_licence": "MIT",
    "training_data": "five data sets of street views, landmarks and rooms, see the paper",
    "published": {"recall at 25 m, mAP": "see the paper's tables; not copied here"},
}


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the names of a MegaLoc network."""
    return "aggregator.agg.dust_bin" in state and "aggregator.linear.weight" in state


def adopt(state: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> Adopted:
    """Take over a MegaLoc network; ``meta`` is not read.

    Raises:
        ValueError: if a tensor is unknown, missing, or of another shape.
    """
    tensors = sort_out(state, _RULES, KIND)
    tensors.tensor("whitening", "weight")  # this form always has one
    network = (DINOv2, dino_arguments(tensors.parts.get("network", {})))
    aggregation = aggregation_arguments(tensors.parts.get("pooling", {}))
    pooling = (OptimalTransportAggregation, aggregation)
    return assemble(KIND, tensors, network, pooling, Protocol(size=322, square=True), CARD)
