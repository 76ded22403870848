"""Any timm network read as maps: sizes, layouts and tokens.

timm's networks differ in what they take (any size, multiples of 32, one size) and in what their
``forward_features`` gives (maps, channels-last maps, tokens, lists). What a network does is found
out by running it on small noise when it is built, not by its name, and kept in a :class:`Reading`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Reading", "class_token", "create_network", "final_map", "probe"]

_LOG = logging.getLogger(__name__)
# timm's own switches for photographs of any size, the first that a network knows
_SWITCHES: tuple[Mapping[str, Any], ...] = (
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"dynamic_img_size": True},
    {"strict_img_size": False, "always_partition": True},
    {"strict_img_size": False},
    {},
)
_SIZES = ((97, 160), (88, 120), (131, 101))  # odd on purpose: none is a multiple of 16 both ways
_FAILURES = (AssertionError, RuntimeError, IndexError, ValueError, TypeError)
_LARGE = ((331, 477),)  # too large for what keeps a table of positions
_STRIDES = (4, 8, 14, 16, 32, 64)
_SIGNED = -0.5  # no activation goes below: SiLU ends at −0.28, hard swish at −0.38


@dataclass(frozen=True, slots=True)
class Reading:
    """How a network is read.

    Attributes:
        multiple: sides are padded to multiples of this; 1: any size.
        size: the one size (h, w) that it takes; None: any.
        form: of ``forward_features``: "map", "channels-last", "tokens", or "other".
        channels, stride: of its final map.
        tokens: class and register tokens in front of the cells.
        signed: whether negative values are part of what its final map says.
    """

    multiple: int = 1
    size: tuple[int, int] | None = None
    form: str = "map"
    channels: int = 0
    stride: int = 32
    tokens: int = 0
    signed: bool = False

    def fitted(self, images: Tensor) -> Tensor:
        """Images (B, 3, h, w) of a size that the network takes: padded with 0, or resized."""
        h, w = images.shape[-2:]
        if self.size is not None:
            how = {"mode": "bilinear", "align_corners": False, "antialias": True}
            return nn.functional.interpolate(images, size=self.size, **how)
        missing = (0, -w % self.multiple, 0, -h % self.multiple)
        return nn.functional.pad(images, missing) if any(missing) else images

    def cropped(self, x: Tensor, height: int, width: int) -> Tensor:
        """A map (B, C, H, W) of a padded image without the cells that saw only padding."""
        if self.size is not None or self.multiple == 1:
            return x
        padded = [side + -side % self.multiple for side in (height, width)]
        sides = zip(x.shape[-2:], (height, width), padded, strict=True)
        rows, columns = (max(1, -(-cells * side // whole)) for cells, side, whole in sides)
        return x[..., :rows, :columns]


def create_network(name: str, *, pretrained: bool) -> nn.Module:
    """A timm network without its classifier, for photographs of any size where it has a switch.

    Raises:
        OSError, RuntimeError: as timm does, if its weights cannot be fetched.
    """
    import timm

    for switches in _SWITCHES:
        try:
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **switches)
        except TypeError as error:  # a switch it doesn't know
            if not switches:
                raise ValueError(f"timm cannot build {name!r}: {error}") from error
    raise AssertionError


def probe(network: nn.Module) -> Reading:
    """Find out how a network is read, by three small pictures of noise.

    Raises:
        ValueError: if it gives no map at any size.
    """
    native = tuple(network.pretrained_cfg.get("input_size", (3, 224, 224)))[1:]
    trials = [Reading(), Reading(multiple=32), Reading(multiple=64), Reading(size=native)]
    was_training = network.training
    network.eval()
    try:
        for trial in trials:
            found = _tried(network, trial)
            if found is not None:
                break
        else:
            raise ValueError(
                f"{type(network).__name__} gives no feature map at any of {_SIZES} or {native}"
            )
    finally:
        network.train(was_training)
    if found.size is not None:
        size = "×".join(map(str, found.size))
        _LOG.warning("%s takes %s pixels only: photographs are resized", _name(network), size)
    return found


@torch.inference_mode()
def _tried(network: nn.Module, trial: Reading) -> Reading | None:
    generator = torch.Generator().manual_seed(0)
    widths, grids = [], set()
    sizes = _SIZES + _LARGE * bool(network.pretrained_cfg.get("fixed_input_size"))
    for size in sizes:
        images = trial.fitted(torch.randn(1, 3, *size, generator=generator))
        try:
            reading = _form(network, images, trial)
            x = final_map(network, images, reading)
        except torch.OutOfMemoryError:
            raise
        except _FAILURES:
            return None
        if x.ndim != 4 or not bool(x.isfinite().all()):
            return None
        widths.append(images.shape[-1] / x.shape[-1])
        grids.add(tuple(x.shape[-2:]))
    if trial.size is None and len(grids) == 1:  # resized inside: only one size is seen
        return None
    stride = min(_STRIDES, key=lambda stride: abs(stride - widths[0]))
    return replace(reading, channels=x.shape[1], stride=stride, signed=float(x.min()) < _SIGNED)


def _form(network: nn.Module, images: Tensor, trial: Reading) -> Reading:
    y = network.forward_features(images)
    tokens = int(getattr(network, "num_prefix_tokens", 0) or 0)
    if torch.is_tensor(y) and y.ndim == 4:
        last = "channels-last" if getattr(network, "output_fmt", "NCHW") == "NHWC" else "map"
        return replace(trial, form=last)
    if torch.is_tensor(y) and y.ndim == 3 and tokens:
        return replace(trial, form="tokens", tokens=tokens)
    return replace(trial, form="other")


def final_map(network: nn.Module, images: Tensor, reading: Reading) -> Tensor:
    """The network's final map (B, C, H, W) of images that fit it."""
    if reading.form == "map":
        return network.forward_features(images)
    if reading.form == "channels-last":
        return network.forward_features(images).permute(0, 3, 1, 2)
    last = len(network.feature_info) - 1
    how = {"indices": [last], "output_fmt": "NCHW", "intermediates_only": True}
    try:
        return network.forward_intermediates(images, norm=True, **how)[0]
    except AssertionError:  # a network whose last norm belongs to its classifier
        return network.forward_intermediates(images, norm=False, **how)[0]


def class_token(network: nn.Module, images: Tensor) -> Tensor:
    """The class token as a map (B, C, 1, 1)."""
    return network.forward_features(images)[:, 0, :, None, None]


def _name(network: nn.Module) -> str:
    return str(network.pretrained_cfg.get("architecture", type(network).__name__))
