"""``RetrievalModel``: photograph → feature map → context → pooling → whitening → descriptor."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from spatial_retrieval.files import atomic_writer, write_json
from spatial_retrieval.layers.whitening import Whitening
from spatial_retrieval.models.backbone import Backbone
from spatial_retrieval.models.config import ModelConfig

__all__ = ["PlainPart", "RetrievalModel"]


class PlainPart(nn.Module):
    """Pooling and whitening of a map without context: (B, C, H, W) → (B, D) unit rows."""

    def __init__(self, pooling: nn.Module, whitening: nn.Module, dim: int) -> None:
        super().__init__()
        self.pooling = pooling
        self.whitening = whitening
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Describe a map."""
        return _whitened(self.pooling, self.whitening, x)


class RetrievalModel(nn.Module):
    """Describes photographs by one unit vector each.

    Args:
        backbone: (B, 3, h, w) in [0, 1] → (B, C, H, W).
        context: named layers (B, C, H, W) → (B, C, H, W), run in order; empty for plain GeM.
        pooling: (B, C, H, W) → (B, C).
        whitening: (B, C) → (B, D); ``nn.Identity()`` for none.
        config: what these were built from; saved beside the weights.
        beside: pools and whitens the map of ``config.beside``; None without one.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        context: Mapping[str, nn.Module],
        pooling: nn.Module,
        whitening: nn.Module,
        config: ModelConfig,
        beside: "PlainPart | None" = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.context = nn.Sequential(OrderedDict(context))
        self.pooling = pooling
        self.whitening = whitening
        self.plain = beside
        self.config = config

    @property
    def dim(self) -> int:
        """Length D of a descriptor."""
        own = getattr(self.whitening, "out_features", self.backbone.channels)
        return own + (self.plain.dim if self.plain is not None else 0)

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self.backbone.mean.device

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
        total = sum(self._describe(_scaled(images, s)) for s in scales)
        return nn.functional.normalize(total, dim=1)

    def _describe(self, images: Tensor) -> Tensor:
        if self.plain is None:
            return self.descriptor(self.feature_map(images))
        layers = (self.config.layer, self.config.beside.layer)
        x, plain = self.backbone.maps(images, layers)
        share = self.config.weight
        parts = (
            share**0.5 * self.plain(plain),
            (1 - share) ** 0.5 * self.descriptor(self.context(x)),
        )
        return torch.cat(parts, dim=1)

    def feature_map(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) → (B, C, H, W): the map that is pooled, after all context layers."""
        return self.context(self.backbone(images))

    def stages(self, images: Tensor) -> dict[str, Tensor]:
        """Each stage's map (B, C, H, W) by name: "backbone", then one for each context layer."""
        maps = {"backbone": self.backbone(images)}
        x = maps["backbone"]
        for name, layer in self.context.named_children():
            maps[name] = x = layer(x)
        return maps

    def descriptor(self, x: Tensor) -> Tensor:
        """Feature map (B, C, H, W) → (B, D) unit rows: pooling, unit length, whitening.

        Of a model with a plain part beside it this is its own part alone.
        """
        return _whitened(self.pooling, self.whitening, x)

    def with_whitening(self, whitening: Whitening, dim: int | None = None) -> "RetrievalModel":
        """The same model (sharing its layers) with this whitening in front of the descriptor."""
        linear = whitening.linear(dim).to(self.device)
        return RetrievalModel(
            self.backbone,
            context=dict(self.context.named_children()),
            pooling=self.pooling,
            whitening=linear,
            config=replace(self.config, dim=linear.out_features),
            beside=self.plain,
        ).eval()

    def beside(self, plain: "RetrievalModel", weight: float) -> "RetrievalModel":
        """This model with a plain one's descriptor in front of its own, sharing all layers.

        Args:
            plain: without context layers, on the same backbone.
            weight: its share of the similarity, 0 … 1.

        Raises:
            ValueError: if ``plain`` has context layers or another backbone, or the weight is not
                in 0 … 1.
        """
        if len(plain.context) or plain.config.backbone != self.config.backbone:
            raise ValueError(
                f"expected a model without context layers on {self.config.backbone}, got one on "
                f"{plain.config.backbone} with {len(plain.context)} of them"
            )
        if not 0 <= weight <= 1:
            raise ValueError(f"expected a weight from 0 to 1, got {weight}")
        return RetrievalModel(
            self.backbone,
            context=dict(self.context.named_children()),
            pooling=self.pooling,
            whitening=self.whitening,
            config=replace(self.config, beside=plain.config, weight=weight),
            beside=PlainPart(plain.pooling, plain.whitening, plain.dim),
        ).eval()

    def fingerprint(self) -> str:
        """Sha256 over configuration and weights: two models that agree describe alike."""
        digest = hashlib.sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save_pretrained(
        self, folder: str | Path, *, include_backbone: bool = False, half: bool = False
    ) -> None:
        """Write ``config.json`` and ``model.safetensors``, each atomically.

        Args:
            folder: made if it isn't there.
            include_backbone: also the backbone's weights; needed when they were trained.
            half: keep weights in half precision, at half the size; they are used in float32.
        """
        from safetensors.torch import save

        weights = {
            name: _stored(value, half)
            for name, value in self.state_dict().items()
            if include_backbone or not name.startswith("backbone.")
        }
        with atomic_writer(Path(folder) / "model.safetensors") as file:
            file.write(save(weights))
        write_json(Path(folder) / "config.json", asdict(self.config))


def _whitened(pooling: nn.Module, whitening: nn.Module, x: Tensor) -> Tensor:
    pooled = nn.functional.normalize(pooling(x), dim=1)
    return nn.functional.normalize(whitening(pooled), dim=1)


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if half and value.is_floating_point() else value


def _scaled(images: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return images
    if not scale > 0:
        raise ValueError(f"expected scales > 0, got {scale}")
    size = [max(1, round(side * scale)) for side in images.shape[-2:]]
    return nn.functional.interpolate(
        images, size=size, mode="bilinear", align_corners=False, antialias=scale < 1
    )
