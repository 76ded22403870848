"""VGG read as a map: torchvision's convolutions without the last pooling.

Simonyan and Zisserman: *Very Deep Convolutional Networks for Large-Scale Image Recognition*,
ICLR 2015.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from spatial_retrieval.layers.rebuildable import Rebuildable
from spatial_retrieval.models.checkpoints.adopted import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["VGGMap", "vgg_arguments"]

_CONFIGURATION = {8: "A", 10: "B", 13: "D", 16: "E"}  # number of convolutions → VGG-11, 13, 16, 19


class VGGMap(Rebuildable, nn.Module):
    """A VGG without its last pooling and its classifier.

    Args:
        convolutions: 8, 10, 13 or 16 (VGG-11, 13, 16, 19).
        rectified: whether the last ReLU is kept; CosPlace cuts it off.
        mean, std: of the input's channels R, G, B in [0, 1].
    """

    def __init__(
        self,
        *,
        convolutions: int = 13,
        rectified: bool = True,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        from torchvision.models.vgg import cfgs, make_layers

        if convolutions not in _CONFIGURATION:
            raise ValueError(f"expected a VGG of 8, 10, 13 or 16 convolutions, got {convolutions}")
        layers = make_layers(cfgs[_CONFIGURATION[convolutions]])
        self.features = layers[: -1 if rectified else -2]
        self.mean, self.std = tuple(mean), tuple(std)
        self.channels, self.stride = 512, 16

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) normalised → (B, 512, H, W)."""
        return self.features(x)


def vgg_arguments(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read how many convolutions off the names of the tensors."""
    return {"convolutions": sum(name.endswith(".weight") for name in tensors)}
