"""SOLAR: second-order attention inside the ResNet, GeM, a linear layer.

Paper: Ng, Balntas, Tian, Mikolajczyk, *SOLAR: Second-Order Loss and Attention for Image Retrieval*,
ECCV 2020 (arXiv 2001.08972). Repository: https://github.com/tonyngjichun/SOLAR, code and
weights MIT.

Published (mAP Medium / Hard, ResNet-101 trained on GL18, queries cropped, longest side 1024, mean
of scales 1, √2, 1/√2): ROxford 69.9 / 47.9, RParis 81.6 / 64.5.

Attention stands after the third stage (reduction 4) and after the fourth (reduction 2).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from spatial_retrieval.layers.attention import SecondOrderAttention
from spatial_retrieval.models.checkpoints.adopted import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Adopted,
    Protocol,
)
from spatial_retrieval.models.checkpoints.assemble import assemble, gem_arguments, input_statistics
from spatial_retrieval.models.checkpoints.pooling import UnitGeM
from spatial_retrieval.models.checkpoints.resnet import ResNetMap, resnet_arguments
from spatial_retrieval.models.checkpoints.tensors import sort_out

__all__ = ["KIND", "AttentiveResNet", "adopt", "recognises"]

KIND = "solar"
_RULES = (
    (r"features\.soa[45]\.gamma", ""),  # a parameter their block declares and never reads
    (r"features\.conv1\.0\.(weight)", r"network.conv1.\1"),
    (r"features\.conv1\.1\.(\w+)", r"network.bn1.\1"),
    (r"features\.conv2_x\.2\.(.+)", r"network.layer1.\1"),
    (r"features\.conv3_x\.(.+)", r"network.layer2.\1"),
    (r"features\.conv4_x\.(.+)", r"network.layer3.\1"),
    (r"features\.conv5_x\.(.+)", r"network.layer4.\1"),
    (r"features\.(soa[45]\..+)", r"network.\1"),
    (r"pool\.p", "pooling.p"),
    (r"whiten\.(weight|bias)", r"whitening.\1"),
)
CARD = {
    "name": "SOLAR",
    "paper": "Ng, Balntas, Tian, Mikolajczyk: SOLAR: Second-Order Loss and Attention for Image "
    "Retrieval, ECCV 2020, arXiv 2001.08972",
    "repository": "https://github.com/tonyngjichun/SOLAR",
    "code_licence": "MIT",
    "weights_licence": "MIT, as the code",
    "training_data": "Google Landmarks 2018",
    "published": {"ResNet-101": "ROxford M/H 69.9/47.9, RParis M/H 81.6/64.5"},
}
_PROTOCOL = Protocol(scales=(1.0, 2**0.5, 2**-0.5), size=1024, query_crop=True)


class AttentiveResNet(ResNetMap):
    """A ResNet whose last two stages are followed by second-order attention.

    Args:
        blocks, bottleneck, mean, std: see :class:`ResNetMap`.
        attention: which of "soa4" (after the third stage) and "soa5" (after the fourth) it has.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int] = (3, 4, 23, 3),
        bottleneck: bool = True,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        attention: Sequence[str] = ("soa4", "soa5"),
    ) -> None:
        super().__init__(blocks=blocks, bottleneck=bottleneck, mean=mean, std=std)
        half, full = self.channels // 2, self.channels
        soa4, soa5 = nn.Identity(), nn.Identity()
        if "soa4" in attention:
            soa4 = SecondOrderAttention(half, reduction=4)
        if "soa5" in attention:
            soa5 = SecondOrderAttention(full, reduction=2)
        self.soa4, self.soa5 = soa4, soa5

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) normalised → (B, C, H, W)."""
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        return self.soa5(self.layer4(self.soa4(x)))


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the names of a SOLAR network."""
    return "features.conv1.0.weight" in state and "features.conv5_x.0.conv1.weight" in state


def adopt(state: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> Adopted:
    """Take over a SOLAR network.

    Raises:
        ValueError: if a tensor is unknown, missing, or of another shape.
    """
    tensors = sort_out(state, _RULES, KIND)
    network = tensors.parts.get("network", {})
    arguments = resnet_arguments(network)
    arguments["attention"] = sorted({n.split(".")[0] for n in network if n.startswith("soa")})
    arguments.update(input_statistics(meta or {}))
    pooling = (UnitGeM, gem_arguments(tensors))
    return assemble(KIND, tensors, (AttentiveResNet, arguments), pooling, _PROTOCOL, CARD)
