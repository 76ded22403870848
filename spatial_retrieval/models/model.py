"""``RetrievalModel``: photograph → feature maps → context → pooling → whitening → descriptor."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spatial_retrieval.layers.whitening import Whitening
from spatial_retrieval.models.backbone import Backbone
from spatial_retrieval.models.head import Branch, Head, Maps
from spatial_retrieval.models.modules import describe_module
from spatial_retrieval.models.multiscale import MeanOfScales
from spatial_retrieval.models.save import save_model

__all__ = ["RetrievalModel"]


class RetrievalModel(nn.Module):
    r"""Describes photographs by one unit vector each.

    A model has one head, or two, ``base`` and ``head``; then its descriptor is
    :math:`[\sqrt{w}\,\mathrm{base}; \sqrt{1-w}\,\mathrm{head}]`, so that similarities are
    w · base + (1 − w) · head, with w the ``base_weight``.

    Args:
        backbone: (B, 3, h, w) in [0, 1] → maps (B, C, H, W) by layer.
        head: maps by layer → (B, D) unit rows.
        base: a second head, without context, in front of ``head``; None without one.
        base_weight: its part of the similarity, 0 … 1.
        source: how the backbone is built again, see :func:`~spatial_retrieval.models.load.rebuild`;
            None for a network that tells this itself.
        multiscale: how descriptors of several scales become one; None: :class:`MeanOfScales`.

    Attributes:
        card: what is known of it, as ``card.json`` next to the weights says; empty for most.
        owns_backbone: whether the backbone's weights are its own, and so are saved with it.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        *,
        base: Head | None = None,
        base_weight: float = 0.5,
        source: Mapping[str, Any] | None = None,
        multiscale: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= base_weight <= 1:
            raise ValueError(f"expected a base_weight from 0 to 1, got {base_weight}")
        self.backbone, self.head, self.base = backbone, head, base
        self.base_weight = base_weight
        self.multiscale = MeanOfScales() if multiscale is None else multiscale
        self.card: dict[str, Any] = {}
        self.owns_backbone = source is None
        self.source = None if source is None else dict(source)

    # -- what it is made of; of a model of several branches, the branch that has the context

    @property
    def context(self) -> nn.Sequential:
        """The context layers, by name."""
        return self.head.main.context

    @property
    def pooling(self) -> nn.Module:
        """(B, C, H, W) → (B, D)."""
        return self.head.main.pooling

    @property
    def whitening(self) -> nn.Module:
        """(B, ΣD) → (B, D)."""
        return self.head.whitening

    @property
    def heads(self) -> dict[str, tuple[Head, float]]:
        """Its heads by name, "base" first, each with its part of the similarity."""
        if self.base is None:
            return {"context" if len(self.context) else "base": (self.head, 1.0)}
        w = self.base_weight
        return {"base": (self.base, w), "context": (self.head, 1 - w)}

    @property
    def is_whitened(self) -> bool:
        """Whether a whitening follows the pooling."""
        return not isinstance(self.whitening, nn.Identity)

    @property
    def is_trained(self) -> bool:
        """Whether anything behind the backbone was learned."""
        return self.is_whitened or any(branch.context for branch in self.head.branches)

    @property
    def dim(self) -> int:
        """Length D of a descriptor."""
        final = getattr(self.multiscale, "out_features", None)  # a whitening learned afterwards
        if final is not None:
            return int(final)
        return sum(_length(head, self.backbone) for head, _ in self.heads.values())

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self.backbone.mean.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the backbone's weights."""
        return next(self.backbone.parameters()).dtype

    # -- photographs to descriptors

    def forward(self, images: Tensor, scales: Sequence[float] = (1.0,)) -> Tensor:
        """Describe images, as the mean of several scales if asked.

        Args:
            images: (B, 3, h, w) RGB in [0, 1].
            scales: factors of the image's sides; e.g. (1, 2**-0.5, 0.5).

        Returns:
            (B, D) unit rows.
        """
        if not scales:
            raise ValueError("expected at least one scale, got none")
        sizes = [self.multiscale.rescale(images, scale) for scale in scales]
        return self.multiscale([self.from_maps(self.maps(x)) for x in sizes])

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, h, w) → the maps (B, C, H, W) that the heads read, by layer, in one pass."""
        heads = [head for head, _ in self.heads.values()]
        layers = tuple(dict.fromkeys(layer for head in heads for layer in head.layers))
        return dict(zip(layers, self.backbone.maps(images, layers), strict=True))

    def from_maps(self, maps: Maps) -> Tensor:
        """Maps by layer → (B, D) unit rows: all that happens behind the backbone."""
        parts = [weight**0.5 * head(maps) for head, weight in self.heads.values()]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def feature_map(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) → (B, C, H, W): the main branch's map, after all its context layers."""
        return self.context(self.backbone.maps(images, self.head.main.layers[:1])[0])

    def stages(self, images: Tensor) -> dict[str, Tensor]:
        """Each stage's map (B, C, H, W) by name: "backbone", then one for each context layer."""
        x = self.backbone.maps(images, self.head.main.layers[:1])[0]
        maps = {"backbone": x}
        for name, layer in self.context.named_children():
            maps[name] = x = layer(x)
        return maps

    def descriptor(self, x: Tensor) -> Tensor:
        """Refined map (B, C, H, W) → (B, D) unit rows of the head, which has this one branch.

        Raises:
            ValueError: if the head has several branches; use :meth:`from_maps`.
        """
        if len(self.head.branches) > 1 or len(self.head.main.layers) > 1:
            layers = ", ".join(self.head.layers)
            raise ValueError(f"expected a head of one map, got one of {layers}; use from_maps()")
        return self.head.whitened(self.head.main.pooled(x))

    # -- other models made of it

    def with_whitening(self, whitening: Whitening, dim: int | None = None) -> "RetrievalModel":
        """The same model (sharing its layers) with this whitening in front of the descriptor."""
        head = Head(list(self.head.branches), whitening.linear(dim).to(self.device))
        model = RetrievalModel(
            self.backbone,
            head,
            base=self.base,
            base_weight=self.base_weight,
            source=self.source,
            multiscale=self.multiscale,
        )
        model.owns_backbone = self.owns_backbone
        return model.eval()

    def describe(self) -> dict[str, Any]:
        """What it is made of, as ``config.json`` holds it."""
        source = self.source or {"network": describe_module(self.backbone.network)}
        return {
            "format": 2,
            "backbone": source,
            "head": self.head.describe(),
            "base": None if self.base is None else self.base.describe(),
            "base_weight": self.base_weight,
            "multiscale": describe_module(self.multiscale),
        }

    def fingerprint(self) -> str:
        """Sha256 over what it is made of and its weights: two that agree describe alike."""
        digest = hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def save_pretrained(
        self, folder: str | Path, *, include_backbone: bool | None = None, half: bool = False
    ) -> None:
        """Write ``config.json`` and ``model.safetensors``, each atomically.

        Args:
            folder: made if it isn't there.
            include_backbone: also the backbone's weights, needed when they were trained; None:
                if they are its own.
            half: keep weights in half precision, at half the size; they are used in float32.
        """
        weights = self.state_dict()
        if not (self.owns_backbone if include_backbone is None else include_backbone):
            weights = {k: v for k, v in weights.items() if not k.startswith("backbone.")}
        save_model(folder, self.describe(), weights, half=half)


def _length(head: Head, backbone: Backbone) -> int:
    if hasattr(head.whitening, "out_features"):
        return int(head.whitening.out_features)
    return sum(_pooled_length(branch, backbone) for branch in head.branches)


def _pooled_length(branch: Branch, backbone: Backbone) -> int:
    channels = backbone.layer_channels(branch.layers[0])
    features = getattr(branch.pooling, "out_features", None)
    return channels if features is None else int(features)
