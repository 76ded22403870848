"""CosPlace: ResNet or VGG-16, cells of unit length, GeM, a linear layer.

Paper: Berton, Masone, Caputo, *Rethinking Visual Geo-localization for Large-Scale Applications*,
CVPR 2022 (arXiv 2204.02287). Repository: https://github.com/gmberton/CosPlace, code MIT; the
weights' files state no licence of their own.

Published numbers are recall at 25 m on street views (one scale, no crop); the paper has the tables.
A file has the form of EigenPlaces' and cannot be told from it: name it with ``--as cosplace``.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from spatial_retrieval.models.checkpoints.adopted import Adopted, Protocol
from spatial_retrieval.models.checkpoints.assemble import assemble, gem_arguments
from spatial_retrieval.models.checkpoints.pooling import UnitCellGeM
from spatial_retrieval.models.checkpoints.resnet import ResNetMap, resnet_arguments, resnet_rules
from spatial_retrieval.models.checkpoints.tensors import sort_out
from spatial_retrieval.models.checkpoints.vgg import VGGMap, vgg_arguments

__all__ = ["KIND", "adopt", "recognises", "take_over"]

KIND = "cosplace"
_HEAD = (
    (r"aggregation\.1\.p", "pooling.p"),
    (r"aggregation\.3\.(weight|bias)", r"whitening.\1"),
)
_RESNET = (*resnet_rules("backbone"), *_HEAD)
_VGG = ((r"backbone\.(\d+)\.(weight|bias)", r"network.features.\1.\2"), *_HEAD)
CARD = {
    "name": "CosPlace",
    "paper": "Berton, Masone, Caputo: Rethinking Visual Geo-localization for Large-Scale "
    "Applications, CVPR 2022, arXiv 2204.02287",
    "repository": "https://github.com/gmberton/CosPlace",
    "code_licence": "MIT",
    "weights_licence": "none stated next to the code's MIT",
    "training_data": "San Francisco XL",
    "published": {"recall at 25 m": "see the paper's tables; not copied here"},
}


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the names of a CosPlace or EigenPlaces network."""
    return "aggregation.1.p" in state and "backbone.0.weight" in state


def adopt(state: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> Adopted:
    """Take over a CosPlace network; ``meta`` is not read.

    Raises:
        ValueError: if a tensor is unknown, missing, or of another shape.
    """
    return take_over(state, KIND, CARD)


def take_over(state: Mapping[str, Tensor], kind: str, card: Mapping[str, Any]) -> Adopted:
    """Take over a network of this form under the name and card of its project."""
    resnet = "backbone.4.0.conv1.weight" in state
    tensors = sort_out(state, _RESNET if resnet else _VGG, kind)
    network = tensors.parts.get("network", {})
    words = (ResNetMap, resnet_arguments(network)) if resnet else (VGGMap, vgg_arguments(network))
    words[1].update({} if resnet else {"rectified": False})
    tensors.tensor("whitening", "weight")  # this form always has one
    return assemble(kind, tensors, words, (UnitCellGeM, gem_arguments(tensors)), Protocol(), card)
