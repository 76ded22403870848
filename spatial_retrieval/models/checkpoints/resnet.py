"""ResNets of any depth read as a map: the stem and four stages of timm's network.

torchvision's, timm's and pycls' ResNets are one network (stride in the 3×3 convolution) under
different names; :data:`TORCHVISION` are the rules for a network saved as a list of its children.
He et al.: *Deep Residual Learning for Image Recognition*, CVPR 2016.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from spatial_retrieval.layers.rebuildable import Rebuildable
from spatial_retrieval.models.checkpoints.adopted import IMAGENET_MEAN, IMAGENET_STD
from spatial_retrieval.models.checkpoints.tensors import Rule

__all__ = ["ResNetMap", "resnet_arguments", "resnet_rules"]


class ResNetMap(Rebuildable, nn.Module):
    """A ResNet without its classifier; its tensors have torchvision's names.

    Args:
        blocks: how many in each of the four stages; (3, 4, 6, 3) is ResNet-34 or -50.
        bottleneck: three convolutions a block (ResNet-50 and deeper) or two.
        mean, std: of the input's channels R, G, B in [0, 1].
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int] = (3, 4, 6, 3),
        bottleneck: bool = True,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        from timm.models.resnet import BasicBlock, Bottleneck, ResNet

        kind = Bottleneck if bottleneck else BasicBlock
        network = ResNet(kind, tuple(blocks), num_classes=0)
        for name in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, getattr(network, name))
        self.mean, self.std = tuple(mean), tuple(std)
        self.channels, self.stride = int(network.num_features), 32

    def stem(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) normalised → (B, 64, h/4, w/4)."""
        return self.maxpool(self.act1(self.bn1(self.conv1(x))))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) normalised → (B, C, H, W)."""
        return self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))


def resnet_rules(prefix: str) -> tuple[Rule, ...]:
    """Rules for children by their number after a prefix: 0 and 1 the stem, 4 … 7 the stages."""
    return (
        (rf"{prefix}\.0\.(weight)", r"network.conv1.\1"),
        (rf"{prefix}\.1\.(\w+)", r"network.bn1.\1"),
        (
            rf"{prefix}\.([4-7])\.(\d+)\.(.+)",
            lambda m: f"network.layer{int(m[1]) - 3}.{m[2]}.{m[3]}",
        ),
    )


def resnet_arguments(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read :class:`ResNetMap`'s arguments off the names of its tensors."""
    blocks = [
        len({name.split(".")[1] for name in tensors if name.startswith(f"layer{stage}.")})
        for stage in (1, 2, 3, 4)
    ]
    if not all(blocks):
        raise ValueError(f"expected a ResNet of four stages, got blocks {blocks}")
    return {"blocks": blocks, "bottleneck": "layer1.0.conv3.weight" in tensors}
