"""``ModelConfig``: a model of one branch, as a few numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from spatial_retrieval.models.backbone import EMBEDDED_BACKBONE

__all__ = ["ModelConfig"]

_RENAMED = {"beside": "base", "weight": "base_weight"}  # as models were saved before format 2


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model of one branch, as :func:`~spatial_retrieval.models.build.build_model` builds it.

    Attributes:
        backbone: ``efficientnet_lite0`` (embedded) or any timm model.
        layer: the map that is used, see :class:`~spatial_retrieval.models.backbone.Backbone`.
        context: the layers between map and pooling, in order, each a pair (kind, arguments) with
            kind "smoothing", "refinement", "attention" or "convolutions", at most one of a kind.
        p: GeM's exponent.
        dim: length of the whitened descriptor; None: no whitening, as long as the map has channels.
        base: a model without a context, on the same backbone, whose descriptor stands in front.
        base_weight: its part of the similarity, 0 … 1.
    """

    backbone: str = EMBEDDED_BACKBONE
    layer: str = "head"
    context: tuple[tuple[str, Mapping[str, Any]], ...] = field(default=())
    p: float = 3.0
    dim: int | None = None
    base: "ModelConfig | None" = None
    base_weight: float = 0.5

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ModelConfig":
        """Read what ``asdict`` wrote; an unknown key is an error, not ignored."""
        value = {_RENAMED.get(key, key): part for key, part in value.items()}
        unknown = set(value) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"unknown keys in a model's config: {', '.join(sorted(unknown))}")
        context = tuple((str(kind), dict(args)) for kind, args in value.get("context", ()))
        base = cls.from_json(value["base"]) if value.get("base") else None
        return cls(**{**value, "context": context, "base": base})
