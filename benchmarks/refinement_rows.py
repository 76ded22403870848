"""The rows of the refinement's ablation: one head each, alike in all else."""

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from refinement_variants import (
    AttentionEdges,
    BiasEdges,
    EdgesBuiltOnce,
    FixedSmoothing,
    LearnedNodes,
    RandomEdges,
    SimilarityEdgesOnly,
    SpatialEdgesOnly,
)
from torch import Tensor, nn

from spatial_retrieval.layers.attention import SecondOrderAttention
from spatial_retrieval.layers.controls import ConvolutionControl, MLPControl
from spatial_retrieval.layers.pooling import GeM
from spatial_retrieval.layers.refinement import SpatialContextRefinement
from spatial_retrieval.layers.smoothing import LearnableSmoothing
from spatial_retrieval.layers.whitening import pca_whitening
from spatial_retrieval.train.data import LabelledSet
from spatial_retrieval.train.validation import encode

DIM = 256
REFINE = {"nodes": 96, "width": 64}


def _refine(kind: type[SpatialContextRefinement] = SpatialContextRefinement, **options: Any) -> Any:
    return partial(kind, **{**REFINE, **options})


def _solar(channels: int) -> nn.Module:
    layer = SecondOrderAttention(channels, reduction=8)
    nn.init.normal_(layer.v.weight, std=0.02)  # where the others start, too
    return layer


def _both(channels: int, *, smoothing_first: bool) -> nn.Module:
    layers = [LearnableSmoothing(channels), SpatialContextRefinement(channels, **REFINE)]
    return nn.Sequential(*(layers if smoothing_first else reversed(layers)))


ROWS: Mapping[str, Any] = {  # name → (channels → layer)
    "gem": lambda channels: nn.Identity(),
    "solar": _solar,
    "mlp": _refine(MLPControl),
    "convolutions": partial(ConvolutionControl, width=64),
    "refine": _refine(),
    "undirected": _refine(rings=(9.0,), sectors=1),
    "random": _refine(RandomEdges),
    "spatial": _refine(SpatialEdgesOnly),
    "similarity": _refine(SimilarityEdgesOnly),
    "bias": _refine(BiasEdges),
    "attention": _refine(AttentionEdges),
    "eight-sectors": _refine(sectors=8),
    "far-rings": _refine(rings=(1.5, 3.0, 6.0, 12.0)),
    "one-block": _refine(blocks=1),
    "three-blocks": _refine(blocks=3),
    "64-nodes": _refine(nodes=64),
    "all-nodes": _refine(nodes=None),
    "learned-nodes": _refine(LearnedNodes),
    "built-once": _refine(EdgesBuiltOnce),
    "wide": _refine(width=128),
    "smoothing": LearnableSmoothing,
    "smoothing-average": partial(FixedSmoothing, bandwidth=0.0, confidence=1.0),
    "smoothing-fixed-bandwidth": partial(FixedSmoothing, bandwidth=1.0),
    "smoothing-no-confidence": partial(FixedSmoothing, confidence=1.0),
    "smoothing-then-refine": partial(_both, smoothing_first=True),
    "refine-then-smoothing": partial(_both, smoothing_first=False),
}


class Unit(nn.Module):
    """(B, D) → unit rows."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) → (B, D)."""
        return nn.functional.normalize(x, dim=1)


class HideCells(nn.Module):
    """Sets up to ``share`` of a map's cells to 0 in training, like things in front of a house."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        if not self.training:
            return x
        limit = self.share * torch.rand(len(x), 1, 1, 1)
        return x * (torch.rand(len(x), 1, *x.shape[2:]) > limit)


def describer(row: str, data: LabelledSet) -> nn.Sequential:
    """Head, GeM and a whitening that starts from the principal components of some maps."""
    channels = data[0, 0].shape[0]
    pooled = nn.Sequential(OrderedDict(hide=HideCells(0.2), head=ROWS[row](channels), gem=GeM()))
    pooled.append(Unit())
    some = np.random.default_rng(0).permutation(len(data))[:800]
    x = torch.from_numpy(encode(pooled, data, indices=some))
    components = pca_whitening(x, power=0.0)
    dim = min(DIM, channels)
    spread = components.linear(dim)(x).detach().std(dim=0)
    turn = nn.Linear(dim, dim)
    with torch.no_grad():
        turn.weight.copy_(torch.diag((spread / spread[0]) ** 0.25))
        turn.bias.zero_()
    fixed = components.linear(dim).requires_grad_(False)
    whitening = nn.Sequential(fixed, nn.BatchNorm1d(dim, affine=False), turn)
    return nn.Sequential(OrderedDict(pooled=pooled, whitening=whitening, unit=Unit()))
