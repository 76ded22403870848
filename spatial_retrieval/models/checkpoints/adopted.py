"""What an official checkpoint becomes: modules, the protocol of its authors, a card.

A descriptor is, with the parts of :class:`Adopted` (see :func:`describe_adopted`)::

    row    = unit(whitening(pooling(network((images − mean) / std))))      at each scale
    result = unit(final(unit(join of the scales' rows)))                    (B, D)

Whatever is of unit length in between is made so by ``pooling`` itself; nothing else may be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Adopted",
    "Protocol",
    "describe_adopted",
    "join",
    "rescale",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Protocol:
    """How the authors describe a photograph when they measure.

    Attributes:
        scales: factors of the image's sides.
        size: longest side in pixels, never enlarged; None: the photograph as it is.
        square: whether both sides become ``size``, whatever the photograph's proportions.
        query_crop: whether a query is cropped to its box.
        bgr: whether their code feeds BGR. Here it is RGB always: the first layer was turned around.
        join: how rows of several scales become one, "mean" or "max".
        power: with "mean": of the generalised mean.
        antialias: how a scale is made. False: bilinear by the factor itself, as ``interpolate``
            does with ``scale_factor``; True: bilinear with a low-pass, to ``int(side · factor)``.
    """

    scales: tuple[float, ...] = (1.0,)
    size: int | None = None
    square: bool = False
    query_crop: bool = False
    bgr: bool = False
    join: str = "mean"
    power: float = 1.0
    antialias: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Adopted:
    """An official checkpoint in modules of this package, in evaluation mode.

    Attributes:
        kind: one of :data:`~spatial_retrieval.models.checkpoints.KINDS`.
        network: (B, 3, h, w) RGB, normalised by its ``mean`` and ``std`` → the map (B, C, H, W), or
            the map and the class token (B, C, 1, 1). It has ``channels`` and ``stride``.
        pooling: the map, or map and token → (B, P).
        whitening: (B, P) → (B, D).
        final: (B, D) → (B, D′), after several scales were joined: a whitening learned afterwards.
        protocol: how its authors measured.
        card: what is known of it: paper, repository, licences, published numbers, left-out tensors.
        arguments: "network", "pooling", "whitening", "final" → the keywords that build it again.
    """

    kind: str
    network: nn.Module
    pooling: nn.Module
    whitening: nn.Module
    final: nn.Module
    protocol: Protocol
    card: Mapping[str, Any]
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def parts(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Each part's import path and keywords, plain enough for JSON."""
        found = {}
        for name, arguments in self.arguments.items():
            kind = type(getattr(self, name))
            found[name] = (f"{kind.__module__}.{kind.__qualname__}", dict(arguments))
        return found


def describe_adopted(adopted: Adopted, images: Tensor, scales: Sequence[float] = (1.0,)) -> Tensor:
    """Describe images as the official code does.

    Args:
        adopted: the checkpoint.
        images: (B, 3, h, w) RGB in [0, 1].
        scales: factors of the image's sides, e.g. ``adopted.protocol.scales``.

    Returns:
        (B, D) unit rows.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not len(scales):
        raise ValueError(
            f"expected images (B, 3, h, w) and a scale, got {tuple(images.shape)} and {scales}"
        )
    network, protocol = adopted.network, adopted.protocol
    mean, std = (images.new_tensor(v).reshape(3, 1, 1) for v in (network.mean, network.std))
    x = (images - mean) / std
    rows = []
    for scale in scales:
        maps = network(rescale(x, scale, antialias=protocol.antialias))
        pooled = adopted.pooling(*(maps if isinstance(maps, tuple) else (maps,)))
        rows.append(_unit(adopted.whitening(pooled)))
    return _unit(adopted.final(join(torch.stack(rows), protocol.join, protocol.power)))


def rescale(images: Tensor, scale: float, *, antialias: bool) -> Tensor:
    """(B, 3, h, w) → (B, 3, ≈ h·scale, ≈ w·scale), see :attr:`Protocol.antialias`."""
    if not scale > 0:
        raise ValueError(f"expected a scale > 0, got {scale}")
    size = [int(side * scale) for side in images.shape[-2:]]
    if scale == 1 or (antialias and size == list(images.shape[-2:])):
        return images
    if min(size) < 1:
        raise ValueError(f"scale {scale} leaves nothing of an image {tuple(images.shape[-2:])}")
    if antialias:
        how = {"size": size, "antialias": True}
    else:
        how = {"scale_factor": scale}
    return nn.functional.interpolate(images, mode="bilinear", align_corners=False, **how)


def join(rows: Tensor, how: str = "mean", power: float = 1.0) -> Tensor:
    """Rows (S, B, D) of S scales → (B, D) unit rows.

    "mean" is the generalised mean with ``power``, "max" its limit (SuperGlobal's scale GeM).

    Example:
        >>> join(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))
        tensor([[0.7071, 0.7071]])
    """
    match how:
        case "mean" if power == 1:
            return _unit(rows.mean(dim=0))
        case "mean":
            rows = rows.clamp(min=0)
            top = rows.amax(dim=0).clamp(min=torch.finfo(rows.dtype).tiny)  # keeps powers finite
            return _unit(top * (rows / top).pow(power).mean(dim=0).pow(1 / power))
        case "max":
            return _unit(rows.amax(dim=0))
        case _:
            raise ValueError(f"expected the scales' rows joined by mean or max, got {how!r}")


def _unit(rows: Tensor) -> Tensor:
    return nn.functional.normalize(rows, dim=-1)
