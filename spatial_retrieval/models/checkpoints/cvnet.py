"""CVNet-Global: a pycls ResNet on BGR, GeM, and a linear layer on the vector as GeM leaves it.

Paper: Lee, Seong, Lee, Kim, *Correlation Verification for Image Retrieval*, CVPR 2022 (arXiv
2204.01458). Repository: https://github.com/sungonce/CVNet, which states no licence, neither for the
code beyond the pycls files (MIT) nor for the weights: ask before you pass them on.

Published (mAP Medium / Hard; quoted from memory, unverified): ResNet-101 ROxford 80.2 / 63.1,
RParis 90.3 / 79.1. Queries cropped, photographs as they are, mean of scales 0.7071, 1, 1.4142, made
by OpenCV (area below 1, bilinear above) from whole numbers 0 … 255; here by an antialiased bilinear
filter, which is close to it and not the same.

A checkpoint also holds the re-ranker (``conv2ds``, ``cv_learner``), which is left out. Their BGR
input is folded into the weights: the first convolution's channels are turned around.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from spatial_retrieval.layers.pooling import GeM
from spatial_retrieval.models.checkpoints.adopted import Adopted, Protocol
from spatial_retrieval.models.checkpoints.assemble import assemble, gem_arguments
from spatial_retrieval.models.checkpoints.resnet import ResNetMap, resnet_arguments
from spatial_retrieval.models.checkpoints.tensors import Rule, Sorted, sort_out

__all__ = ["KIND", "PYCLS", "adopt", "recognises", "turn_around"]

KIND = "cvnet"
_LAYERS = {
    "f.a": "conv1",
    "f.a_bn": "bn1",
    "f.b": "conv2",
    "f.b_bn": "bn2",
    "f.c": "conv3",
    "f.c_bn": "bn3",
    "proj": "downsample.0",
    "bn": "downsample.1",
}


def _block(match: re.Match[str]) -> str:
    """``s1.b1.f.a.weight`` → ``layer1.0.conv1.weight``."""
    stage, block, layer, name = match.groups()
    return f"network.layer{stage}.{int(block) - 1}.{_LAYERS[layer]}.{name}"


PYCLS: tuple[Rule, ...] = (
    (r"encoder_q\.stem\.conv\.(weight)", r"network.conv1.\1"),
    (r"encoder_q\.stem\.bn\.(\w+)", r"network.bn1.\1"),
    (r"encoder_q\.s([1-4])\.b(\d+)\.(f\.[abc](?:_bn)?|proj|bn)\.(\w+)", _block),
    (r"encoder_q\.head\.fc\.(weight|bias)", r"whitening.\1"),
    (r"(conv2ds|cv_learner)\..+", ""),  # the re-ranker
)
_RULES = (*PYCLS, (r"encoder_q\.head\.pool\.p", "pooling.p"))
CARD = {
    "name": "CVNet-Global",
    "paper": "Lee, Seong, Lee, Kim: Correlation Verification for Image Retrieval, CVPR 2022, "
    "arXiv 2204.01458",
    "repository": "https://github.com/sungonce/CVNet",
    "code_licence": "none stated (its pycls files: MIT)",
    "weights_licence": "none stated",
    "training_data": "Google Landmarks v2 clean, which shares landmarks with 36 of 70 ROxford and "
    "38 of 70 RParis queries",
    "published": {
        "ResNet-101 (from memory, unverified)": "ROxford M/H 80.2/63.1, RParis M/H 90.3/79.1"
    },
}
_PROTOCOL = Protocol(scales=(0.7071, 1.0, 1.4142), query_crop=True, bgr=True, antialias=True)


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether these are pycls' names as CVNet uses them."""
    return "encoder_q.stem.conv.weight" in state and "encoder_q.head.fc.weight" in state


def adopt(state: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> Adopted:
    """Take over CVNet's global branch; ``meta`` is not read.

    Raises:
        ValueError: if a tensor is unknown, missing, or of another shape.
    """
    tensors = turn_around(sort_out(state, _RULES, KIND))
    tensors.tensor("whitening", "weight")  # this form always has one
    network = (ResNetMap, resnet_arguments(tensors.parts.get("network", {})))
    return assemble(KIND, tensors, network, (GeM, gem_arguments(tensors)), _PROTOCOL, CARD)


def turn_around(tensors: Sorted) -> Sorted:
    """The same tensors with the first convolution reading RGB instead of BGR."""
    network = dict(tensors.parts.get("network", {}))
    if network.get("conv1.weight") is not None and network["conv1.weight"].ndim == 4:
        network["conv1.weight"] = network["conv1.weight"].flip(1)
    return Sorted({**tensors.parts, "network": network}, tensors.official, tensors.left_out)
