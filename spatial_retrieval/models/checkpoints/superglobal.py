r"""SuperGlobal: CVNet's weights with other pooling over cells, regions and scales.

Paper: Shao, Chen, Karpur, Cui, Araujo, Cao, *Global Features are All You Need for Image Retrieval
and Reranking*, ICCV 2023 (arXiv 2308.06954). Repository: https://github.com/ShihaoShao-GH/SuperGlobal,
code MIT; the weights are CVNet's, without a stated licence.

Published (mAP Medium / Hard, ResNet-101, with its re-ranking): ROxford 90.9 / 80.2, RParis 93.9 /
86.7; without (from memory, unverified): 85.3 / 72.1, 92.1 / 83.5. Queries cropped, photographs as
they are, scales 0.7071, 1, 1.4142, antialiased.

On the map x, with the 5 × 5 cells R(n) around cell n, reflected at the border::

    regional GeM   r_n = ½ x_n + ½ (mean over R(n) of x^2.5)^(1/2.5)
    GeM+           y = (mean over cells of max(r, 1e-8)^4.6)^(1/4.6), unit length
    scale GeM      the maximum over scales of the rows, each of unit length

ReLUP clamps at 0.014 what the blocks of the first three stages put out. In the published code the
first stage clamps so inside its blocks whatever the switch says, and so does it here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from spatial_retrieval.layers.pooling import gem
from spatial_retrieval.layers.rebuildable import Rebuildable
from spatial_retrieval.models.checkpoints.adopted import Adopted, Protocol
from spatial_retrieval.models.checkpoints.assemble import assemble, gem_arguments
from spatial_retrieval.models.checkpoints.cvnet import PYCLS, turn_around
from spatial_retrieval.models.checkpoints.pooling import UnitGeM
from spatial_retrieval.models.checkpoints.resnet import ResNetMap, resnet_arguments
from spatial_retrieval.models.checkpoints.tensors import sort_out

__all__ = ["KIND", "ClampedResNet", "WindowedGeM", "adopt", "recognises", "windowed_gem"]

KIND = "superglobal"
_UNUSED = (r"encoder_q\.(seb[12]|sefc)\..+", "")  # layers their network declares and never runs
CARD = {
    "name": "SuperGlobal",
    "paper": "Shao, Chen, Karpur, Cui, Araujo, Cao: Global Features are All You Need for Image "
    "Retrieval and Reranking, ICCV 2023, arXiv 2308.06954",
    "repository": "https://github.com/ShihaoShao-GH/SuperGlobal",
    "code_licence": "MIT",
    "weights_licence": "none stated (the weights are CVNet's)",
    "training_data": "Google Landmarks v2 clean, which shares landmarks with 36 of 70 ROxford and "
    "38 of 70 RParis queries",
    "published": {
        "ResNet-101, re-ranked": "ROxford M/H 90.9/80.2, RParis M/H 93.9/86.7",
        "ResNet-101 (from memory, unverified)": "ROxford M/H 85.3/72.1, RParis M/H 92.1/83.5",
    },
}
_PROTOCOL = Protocol(
    scales=(0.7071, 1.0, 1.4142), query_crop=True, bgr=True, join="max", antialias=True
)


def windowed_gem(x: Tensor, *, size: int = 5, p: float = 2.5) -> Tensor:
    """Half each cell, half the generalised mean of the region around it.

    A map with a side too short to be reflected (under ``size // 2 + 1`` cells), which the published
    code refuses, is continued by its border cells.

    Args:
        x: (B, C, H, W), not negative.
        size: side of the region in cells, odd.
        p: exponent, > 0.

    Returns:
        (B, C, H, W).
    """
    if x.ndim != 4 or size < 1 or size % 2 == 0 or not p > 0:
        raise ValueError(
            f"expected x (B, C, H, W), an odd size and p > 0, got {tuple(x.shape)}, {size}, {p}"
        )
    margin = size // 2
    mode = "reflect" if min(x.shape[-2:]) > margin else "replicate"
    around = nn.functional.pad(x, (margin,) * 4, mode=mode).pow(p)
    return 0.5 * x + 0.5 * nn.functional.avg_pool2d(around, size, stride=1).pow(1 / p)


class WindowedGeM(Rebuildable, nn.Module):
    """:func:`windowed_gem`, then GeM+, then unit length: (B, C, H, W) → (B, C) unit rows."""

    def __init__(self, *, p: float = 4.6, size: int = 5, regional_p: float = 2.5) -> None:
        super().__init__()
        self.p, self.size, self.regional_p = p, size, regional_p

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map."""
        x = windowed_gem(x, size=self.size, p=self.regional_p)
        return nn.functional.normalize(gem(x, p=self.p, eps=1e-8), dim=1)


class Clamp(Rebuildable, nn.Module):
    """max(x, minimum), a ReLU that ends above zero."""

    def __init__(self, minimum: float) -> None:
        super().__init__()
        self.minimum = minimum

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x.clamp(min=self.minimum)


class ClampedResNet(ResNetMap):
    """A bottleneck ResNet with ReLUP.

    Args:
        blocks: how many in each of the four stages.
        inside: what the first stage clamps at inside its blocks.
        after: what the blocks of the first three stages clamp at behind the sum; 0 is a ReLU.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int] = (3, 4, 23, 3),
        inside: float = 0.014,
        after: float = 0.014,
    ) -> None:
        super().__init__(blocks=blocks)
        for block in self.layer1:
            block.act1, block.act2 = Clamp(inside), Clamp(inside)
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage:
                block.act3 = Clamp(after)


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether SuperGlobal's own network was saved; a file of CVNet's needs ``--as superglobal``."""
    return "encoder_q.stem.conv.weight" in state and "encoder_q.sefc.weight" in state


def adopt(
    state: Mapping[str, Tensor],
    meta: Mapping[str, Any] | None = None,
    *,
    relup: bool = False,
    additions: bool = True,
) -> Adopted:
    """Take over CVNet's weights as SuperGlobal uses them; ``meta`` is not read.

    Args:
        state: of CVNet or of SuperGlobal's network.
        relup: whether ReLUP is on behind the blocks.
        additions: regional, plus and scale GeM; without them the checkpoint's own GeM, of unit
            length, and the mean over scales.

    Raises:
        ValueError: if a tensor is unknown, missing, or of another shape.
    """
    p = "" if additions else "pooling.p"
    tensors = sort_out(state, (*PYCLS, _UNUSED, (r"encoder_q\.head\.pool\.p", p)), KIND)
    tensors = turn_around(tensors)
    shape = resnet_arguments(tensors.parts.get("network", {}))
    tensors.tensor("whitening", "weight")  # this form always has one
    if not shape["bottleneck"]:
        raise ValueError("expected a ResNet of bottlenecks (50 layers or more)")
    network = {"blocks": shape["blocks"], "after": 0.014 if relup else 0.0}
    pooling = (WindowedGeM, {}) if additions else (UnitGeM, gem_arguments(tensors))
    name = KIND + ("" if additions else "-plain") + ("-relup" if relup else "")
    protocol = _PROTOCOL if additions else replace(_PROTOCOL, join="mean")
    card = {**CARD, "relup": relup}
    return assemble(name, tensors, (ClampedResNet, network), pooling, protocol, card)
