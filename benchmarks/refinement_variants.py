r"""Variants of spatial context-aware refinement that only the ablation compares.

With attention the weights of the mean :math:`m_r` are a softmax of :math:`q_i^\top k_j / \sqrt d`
over the neighbours (Veličković et al., *Graph Attention Networks*, ICLR 2018, in the dot-product
form of Vaswani et al., 2017); with a bias, a number per relation and head is added to the logits,
and all relations of a kind share one mean (Shaw et al., *Self-Attention with Relative Position
Representations*, NAACL 2018, bins instead of clipped offsets).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from spatial_retrieval.layers.graph import relation_count
from spatial_retrieval.layers.refinement import SpatialContextRefinement
from spatial_retrieval.layers.refinement_block import RefinementBlock
from spatial_retrieval.layers.smoothing import LearnableSmoothing, SmoothingKernel


class SpatialEdgesOnly(SpatialContextRefinement):
    """No similarity edges."""

    def _relations(self) -> tuple[int, int]:
        return relation_count(self.rings, self.sectors), 0


class SimilarityEdgesOnly(SpatialContextRefinement):
    """No spatial edges."""

    def _relations(self) -> tuple[int, int]:
        return 0, self.sectors


class RandomEdges(SpatialEdgesOnly):
    """Spatial edges between cells whose places were shuffled: as many, to nowhere in particular."""

    seed = 0

    def _places(self, index: Tensor, x: Tensor) -> Tensor:
        place = super()._places(index, x)
        draw = torch.Generator().manual_seed(self.seed)
        return place[:, torch.randperm(place.shape[1], generator=draw).to(place.device)]


class EdgesBuiltOnce(SpatialContextRefinement):
    """Similar nodes are found before the first block and kept."""

    _kept: tuple[Tensor, Tensor] | None = None

    def _similar(self, h: Tensor, around: Tensor, valid: Tensor | None) -> Tensor:
        if self._kept is None or self._kept[0] is not around:  # another pass has other sectors
            self._kept = around, super()._similar(h, around, valid)
        return self._kept[1]


class LearnedNodes(SpatialContextRefinement):
    """Nodes are selected by a learned score, which also gates what is written back."""

    def __init__(self, channels: int, **arguments: object) -> None:
        super().__init__(channels, **arguments)
        self.score = nn.Conv2d(channels, 1, kernel_size=1)

    def _scores(self, x: Tensor) -> Tensor:
        return self.score(x).flatten(1)

    def _written(self, h: Tensor, index: Tensor, x: Tensor) -> Tensor:
        gate = self._scores(x).gather(1, index)[..., None].sigmoid()
        return super()._written(h, index, x) * gate


class WeightedBlock(RefinementBlock):
    """A block whose neighbours don't all count the same.

    Args:
        width: D.
        relations: number of relations of each kind of edges.
        attention: weigh neighbours by queries and keys.
        bias: one mean per kind of edges, its weights learned for each relation and head.
        heads: T, each of which passes D/T channels.
    """

    def __init__(
        self, width: int, *, relations: Sequence[int], attention: bool, bias: bool, heads: int
    ) -> None:
        messages = sum(min(r, 1) if bias else r for r in relations)
        if width % heads:
            raise ValueError(f"expected a width that heads divide, got {width} and {heads}")
        super().__init__(width, relations=messages, hidden=2 * width)
        self.heads, self.relations = heads, tuple(relations)
        self.query_key = nn.Linear(width, 2 * width) if attention else None
        self.bias = nn.Parameter(torch.zeros(heads, sum(relations))) if bias else None

    def heard(self, y: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """The messages of all relations: (B, K, D) → (B, K, R·D)."""
        return torch.cat([messages_of_heads(y, w) for w in self._weighed(y, weights)], dim=-1)

    def _weighed(self, y: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
        """For each kind of edges (B, R, T, K, K)."""
        used = [w for w in weights if w.shape[1]]
        logits = self._logits(y)
        if self.bias is None:
            return [softmax_weights(w > 0, logits) for w in used]
        biases = self.bias.split([r for r in self.relations if r], dim=1)  # each (T, R)
        return [
            softmax_weights(
                (w > 0).any(dim=1, keepdim=True),
                logits + torch.einsum("brij,tr->btij", (w > 0).to(y.dtype), b),
            )
            for w, b in zip(used, biases, strict=True)
        ]

    def _logits(self, y: Tensor) -> Tensor:
        """(B or 1, T, K, K)."""
        if self.query_key is None:
            return y.new_zeros(1, self.heads, y.shape[1], y.shape[1])
        query, key = self.query_key(y).unflatten(-1, (2, self.heads, -1)).unbind(dim=2)
        return torch.einsum("bitd,bjtd->btij", query, key) * query.shape[-1] ** -0.5


class AttentionEdges(SpatialContextRefinement):
    """Neighbours are weighed by a learned similarity instead of equally."""

    attention: ClassVar[bool] = True
    bias: ClassVar[bool] = False
    heads: ClassVar[int] = 1

    def _block(self, width: int) -> nn.Module:
        options = {"attention": self.attention, "bias": self.bias, "heads": self.heads}
        return WeightedBlock(width, relations=self.relations, **options)


class BiasEdges(AttentionEdges):
    """One mean over all neighbours, whose weights are learned per ring and sector, by head."""

    attention = False
    bias = True
    heads = 4


def softmax_weights(edges: Tensor, logits: Tensor) -> Tensor:
    """Weights of each relation's neighbours, a softmax of logits; rows without any sum to 0.

    Args:
        edges: (B, R, K, K) bool: does i (row) hear j (column)?
        logits: (B, T, K, K), one for each head T and edge.

    Returns:
        (B, R, T, K, K).
    """
    edges = edges[:, :, None]
    masked = logits[:, None].masked_fill(~edges, torch.finfo(logits.dtype).min)
    return masked.softmax(dim=-1) * edges


def messages_of_heads(y: Tensor, weights: Tensor) -> Tensor:
    """Messages by head: (B, K, D) and (B or 1, R, T, K, K) → (B, K, R·D)."""
    weights = weights.to(y.dtype)
    heard = weights.sum(dim=-1)  # (B or 1, R, T, K): 1 or 0
    values = y.unflatten(-1, (weights.shape[2], -1)).transpose(1, 2)  # (B, T, K, D/T)
    mean = weights @ values[:, None]  # (B, R, T, K, D/T)
    difference = mean - values[:, None] * heard[..., None]
    return difference.permute(0, 3, 1, 2, 4).flatten(2)


class FixedSmoothing(LearnableSmoothing):
    """Smoothing whose bandwidth or self-confidence is one number for all cells, not learned.

    ``bandwidth=0, confidence=1`` is average pooling.
    """

    def __init__(
        self, channels: int, *, bandwidth: float | None = None, confidence: float | None = None
    ) -> None:
        super().__init__(channels)
        self.bandwidth, self.confidence = bandwidth, confidence

    def kernels(self, x: Tensor) -> tuple[SmoothingKernel, ...]:
        """The kernels of each stage."""
        return tuple(
            replace(k, a=_unless(self.bandwidth, k.a), c=_unless(self.confidence, k.c))
            for k in super().kernels(x)
        )


def _unless(fixed: float | None, learned: Tensor) -> Tensor:
    return learned if fixed is None else torch.full_like(learned, fixed)
