"""A network that gives one map, or a map and a class token, read as a backbone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spatial_retrieval.models.checkpoints.dinov2 import DINOv2

__all__ = ["NetworkBackbone"]


class NetworkBackbone(nn.Module):
    """The interface of :class:`~spatial_retrieval.models.backbone.Backbone` over one network.

    Args:
        network: (B, 3, h, w) normalised → (B, C, H, W), or that and the token (B, C, 1, 1); has
            ``mean``, ``std`` (RGB), ``channels`` and ``stride``.

    Attributes:
        layers: "head", and "token" where there is one.
        layer: "head".
        channels, stride: of its map.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.layers = ("head", "token") if isinstance(network, DINOv2) else ("head",)
        self.layer = "head"
        self.channels, self.stride = int(network.channels), int(network.stride)
        for name in ("mean", "std"):
            value = torch.tensor([float(v) for v in getattr(network, name)]).reshape(3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) RGB in [0, 1] → (B, C, H, W)."""
        return self.maps(images, ("head",))[0]

    def maps(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """Map and token, in the order asked for.

        Raises:
            ValueError: if the images are not (B, 3, h, w) floats, or a layer is unknown.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"expected images (B, 3, h, w), RGB floats in [0, 1], got {tuple(images.shape)} "
                f"{images.dtype}"
            )
        for layer in layers:
            self._check(layer)
        found = self.network((images - self.mean) / self.std)
        found = found if isinstance(found, tuple) else (found,)
        by_name = dict(zip(self.layers, found, strict=True))
        return [by_name[layer] for layer in layers]

    def layer_channels(self, layer: str) -> int:
        """Number of channels C of a layer's map."""
        self._check(layer)
        return self.channels

    def _check(self, layer: str) -> None:
        if layer not in self.layers:
            raise ValueError(f"expected a layer among {', '.join(self.layers)}, got {layer!r}")
