r"""Spatial context-aware refinement: a graph over the strongest cells tells each where it stands.

The K strongest cells of a feature map are nodes, :math:`h_k = W_{in} x_k`. Edges are of two kinds:
spatial, one relation r for each ring and sector of the displacement, and similarity, the nearest
nodes in feature space, again by the sector they lie in. A block passes the messages
:math:`m_r(y)` of :func:`~spatial_retrieval.layers.graph.pass_messages` along all relations:

.. math::
    y &= \mathrm{LN}(h), \qquad
    h \leftarrow h + \mathrm{GELU}\Big(W_0\,y + \sum_r W_r\,m_r(y)\Big), \qquad
    h \leftarrow h + \mathrm{FFN}(\mathrm{LN}(h))

and what the last block left is written back to the cells, :math:`x_k \leftarrow x_k + o(h_k)`;
other cells stay as they are.

Because :math:`W_r` belongs to a direction, "arch left of door" and "door left of arch" give
different nodes; with undirected edges (one ring, one sector) both are the same. The pieces:
graph convolution, Kipf & Welling (ICLR 2017); neighbours rebuilt in feature space and difference
messages, Wang et al. (DGCNN, TOG 2019); a graph over image patches with an FFN in each block, Han
et al. (*Vision GNN*, NeurIPS 2022, §3.2); positions that enter a graph of local features, Sarlin
et al. (*SuperGlue*, CVPR 2020, eq. 2), here relative instead of absolute.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from spatial_retrieval.layers.graph import (
    displacement_bins,
    edge_weights,
    relation_count,
    select_nodes,
    similarity_edges,
    spatial_edges,
)
from spatial_retrieval.layers.rebuildable import Rebuildable
from spatial_retrieval.layers.refinement_block import RefinementBlock

__all__ = ["SpatialContextRefinement"]

_START = 0.02  # standard deviation of the read-out's first weights: near the map as it came


class SpatialContextRefinement(Rebuildable, nn.Module):
    """Refines the strongest cells of a map by messages from the others.

    Args:
        channels: C of the map.
        nodes: K; None takes every cell.
        blocks: how many blocks of messages; 0 leaves the map unchanged.
        width: channels of a node inside the graph.
        rings: radii of the spatial relations in cells, rising; the last bounds the reach.
        sectors: directions within a ring: 1, 4 or 8.

    Attributes:
        neighbours: how many similar nodes each node hears.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> refine = SpatialContextRefinement(320, nodes=64)
        >>> refine(torch.rand(2, 320, 12, 9)).shape
        torch.Size([2, 320, 12, 9])
    """

    neighbours: ClassVar[int] = 8

    def __init__(
        self,
        channels: int,
        *,
        nodes: int | None = 256,
        blocks: int = 2,
        width: int = 128,
        rings: Sequence[float] = (1.5, 4.0, 9.0),
        sectors: int = 4,
    ) -> None:
        super().__init__()
        if blocks < 0 or (nodes is not None and nodes < 1) or width < 1:
            raise ValueError(
                "expected blocks ≥ 0, nodes ≥ 1 or None, and width ≥ 1; got "
                f"blocks={blocks}, nodes={nodes}, width={width}"
            )
        self.nodes, self.rings, self.sectors = nodes, tuple(rings), sectors
        self.relations = self._relations()
        self.blocks = nn.ModuleList(self._block(width) for _ in range(blocks))
        self.read_in = nn.Linear(channels, width)
        self.read_out = nn.Linear(width, channels)
        nn.init.normal_(self.read_out.weight, std=_START)
        nn.init.zeros_(self.read_out.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, C, H, W) → (B, C, H, W); ``mask`` (B, H, W) bool is True where a cell is real."""
        if not self.blocks:
            return x
        index, states, _ = self.trace(x, mask)
        written = self._written(states[-1], index, x)  # (B, K, C)
        if mask is not None:
            written = written * mask.flatten(1).gather(1, index)[..., None]
        where = index[:, None].expand(-1, x.shape[1], -1)  # (B, C, K)
        return x.flatten(2).scatter_add(2, where, written.mT.to(x.dtype)).reshape(x.shape)

    def trace(
        self, x: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor], list[tuple[Tensor, ...]]]:
        """What happens inside, for pictures and tests.

        Args:
            x: (B, C, H, W).
            mask: (B, H, W) bool, or None.

        Returns:
            The nodes' cells (B, K); the nodes' states (B, K, width), before the first and after
            each block; for each block its edges, spatial then similar, each (B or 1, R, K, K) bool.
        """
        if x.ndim != 4 or (mask is not None and mask.shape != (x.shape[0], *x.shape[2:])):
            got = f"{tuple(x.shape)} and {None if mask is None else tuple(mask.shape)}"
            raise ValueError(f"expected a map (B, C, H, W) and a mask (B, H, W) or None, got {got}")
        mask = None if mask is None else mask.flatten(1)
        index = select_nodes(self._scores(x).detach(), self.nodes, mask)  # (B, K)
        valid = None if mask is None else mask.gather(1, index)
        cells = x.flatten(2).gather(2, index[:, None].expand(-1, x.shape[1], -1)).mT  # (B, K, C)
        near, around = self._displacements(index, x)
        fixed = edge_weights(spatial_edges(near, self.relations[0], valid))
        states, passed = [self.read_in(cells)], []
        for block in self.blocks:
            passed.append((fixed, self._similar(states[-1], around, valid)))
            states.append(block(states[-1], passed[-1]))
        return index, states, passed

    # -- the steps, which variants replace

    def _relations(self) -> tuple[int, int]:
        """Number of relations of the spatial and of the similarity edges."""
        return relation_count(self.rings, self.sectors), self.sectors

    def _block(self, width: int) -> nn.Module:
        return RefinementBlock(width, relations=sum(self.relations), hidden=2 * width)

    def _scores(self, x: Tensor) -> Tensor:
        """(B, N): what the nodes are selected by."""
        return torch.linalg.vector_norm(x, dim=1).flatten(1)

    def _written(self, h: Tensor, index: Tensor, x: Tensor) -> Tensor:
        """(B, K, C): what is added to the nodes' cells."""
        return self.read_out(h)

    def _places(self, index: Tensor, x: Tensor) -> Tensor:
        """(B or 1, K, 2): rows and columns of the nodes."""
        if index.shape[1] == x.shape[2] * x.shape[3]:  # all cells: the same for the whole batch
            index = index[:1]
        return torch.stack([index // x.shape[3], index % x.shape[3]], dim=-1).to(x.dtype)

    def _displacements(self, index: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Ring and sector of each pair of nodes, and the sector alone: both (B or 1, K, K)."""
        place = self._places(index, x)
        near = displacement_bins(place, rings=self.rings, sectors=self.sectors)
        # No cell is nearer than half a cell, so the second ring's sectors cover everything.
        around = displacement_bins(place, rings=(0.5, float("inf")), sectors=self.sectors) - 1
        return near, around

    def _similar(self, h: Tensor, around: Tensor, valid: Tensor | None) -> Tensor:
        """Weights (B, R, K, K) of the similarity edges, one relation for each sector."""
        if not self.relations[1]:
            return h.new_zeros(1, 0, h.shape[1], h.shape[1])
        sectors = spatial_edges(around, self.relations[1])
        return edge_weights(sectors & similarity_edges(h, self.neighbours, valid)[:, None])
