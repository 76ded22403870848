"""Models made of parts: one branch of built modules, or two models on one backbone."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from spatial_retrieval.models.backbone import Backbone
from spatial_retrieval.models.head import Branch, Head
from spatial_retrieval.models.model import RetrievalModel

__all__ = ["fuse", "single"]


def fuse(base: RetrievalModel, context: RetrievalModel, base_weight: float) -> RetrievalModel:
    """One model of two heads on one backbone: ``base``'s descriptor in front of ``context``'s.

    Args:
        base: of one head.
        context: of one head; its backbone is the one that is used.
        base_weight: the base's part of the similarity, 0 … 1.

    Raises:
        ValueError: if either has two heads already, their backbones differ in kind or weights, or
            the weight is not in 0 … 1.
    """
    for name, model in (("base", base), ("context", context)):
        if model.base is not None:
            raise ValueError(f"expected a {name} model of one head, got one that is fused already")
    ours, theirs = context.backbone.state_dict(), base.backbone.state_dict()
    same = ours.keys() == theirs.keys() and all(
        a.shape == theirs[k].shape and torch.equal(a, theirs[k].to(a)) for k, a in ours.items()
    )
    if not same:
        raise ValueError(
            "expected two models on one backbone with the same weights; these differ, so the "
            "base's whitening would be applied to maps that it was not learned from"
        )
    source = context.source
    return RetrievalModel(
        context.backbone, context.head, base=base.head, base_weight=base_weight, source=source
    ).eval()


def single(
    backbone: Backbone,
    pooling: nn.Module,
    *,
    context: Mapping[str, nn.Module] | None = None,
    whitening: nn.Module | None = None,
    source: Mapping[str, Any] | None = None,
) -> RetrievalModel:
    """A model of one branch: the backbone's own layer → context → pooling → whitening.

    Args:
        backbone: its ``layer`` is read.
        pooling: (B, C, H, W) → (B, D).
        context: named layers (B, C, H, W) → (B, C, H, W), run in order.
        whitening: (B, D) → (B, D′).
        source: see :class:`RetrievalModel`.
    """
    branch = Branch(backbone.layer, pooling, context=context)
    head = Head([branch], nn.Identity() if whitening is None else whitening)
    return RetrievalModel(backbone, head, source=source).eval()
