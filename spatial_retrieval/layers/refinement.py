r"""Spatial context-aware refinement: a graph over the strongest cells tells each where it stands.

The K strongest cells of a feature map are nodes, :math:`h_k = W_{in} x_k`. Edges are of two kinds:
spatial, one relation r for each ring and sector of the displacement, and similarity, the nearest
nodes in feature space, again by the sector they lie in. A block passes the messages
:math:`m_r(y)` of :func:`~spatial_retrieval.layers.graph.propagate` along all relations:

.. math::
    y &= \mathrm{LN}(h), \qquad
    h \leftarrow h + \mathrm{GELU}\Big(W_0\,y + \sum_r W_r\,m_r(y)\Big), \qquad
    h \leftarrow h + \mathrm{FFN}(\mathrm{LN}(h))

and what the last block left is written back to the cells, :math:`x_k \leftarrow x_k + o(h_k)`;
other cells stay as they are.

Because :math:`W_r` belongs to a direction, "arch left of door" and "door left of arch" give
different nodes; with undirected edges (``displacement="none"``) both are the same. The pieces:
graph convolution, Kipf & Welling (ICLR 2017); neighbours rebuilt in feature space and difference
messages, Wang et al. (DGCNN, TOG 2019); a graph over image patches with an FFN in each block, Han
et al. (*Vision GNN*, NeurIPS 2022, §3.2); positions that enter a graph of local features, Sarlin
et al. (*SuperGlue*, CVPR 2020, eq. 2), here relative instead of absolute.
"""

from collections.abc import Sequence

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

EDGES = ("both", "spatial", "similarity", "random", "none")
DISPLACEMENTS = ("bins", "none", "bias")


class SpatialContextRefinement(Rebuildable, nn.Module):
    """Refines the strongest cells of a map by messages from the others.

    Args:
        channels: C of the map.
        nodes: K; None takes every cell.
        blocks: how many blocks of messages; 0 leaves the map unchanged.
        width: channels of a node inside the graph.
        edges: "both", "spatial", "similarity", "random" (spatial edges between cells whose places
            were shuffled: as many, to nowhere in particular) or "none" (an MLP on each node,
            widened to as many parameters).
        displacement: how an edge knows where it leads. "bins": a weight matrix for each ring and
            sector. "none": it doesn't, all neighbours are averaged. "bias": one average over all
            neighbours whose weights are learned per ring and sector, for each head.
        rings: radii of the spatial relations in cells, rising; the last bounds the reach.
        sectors: directions within a ring: 1, 4 or 8.
        neighbours: how many similar nodes each node hears.
        attention: weigh neighbours by a learned similarity instead of equally.
        heads: of the attention or of the bias.
        select: "norm", or "learned": by a learned score, which also gates what is written back.
        rebuild: find similar nodes anew in each block instead of once.
        start: standard deviation of the read-out's first weights; 0 starts at the plain map.
        seed: of the random edges.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> refine = SpatialContextRefinement(320, nodes=64)
        >>> refine(torch.rand(2, 320, 12, 9)).shape
        torch.Size([2, 320, 12, 9])
    """

    def __init__(
        self,
        channels: int,
        *,
        nodes: int | None = 256,
        blocks: int = 2,
        width: int = 128,
        edges: str = "both",
        displacement: str = "bins",
        rings: Sequence[float] = (1.5, 4.0, 9.0),
        sectors: int = 4,
        neighbours: int = 8,
        attention: bool = False,
        heads: int = 1,
        select: str = "norm",
        rebuild: bool = True,
        start: float = 0.02,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_choice("edges", edges, ("both", "spatial", "similarity", "random", "none"))
        _check_choice("displacement", displacement, ("bins", "none", "bias"))
        _check_choice("select", select, ("norm", "learned"))
        _check_sizes(blocks=blocks, nodes=nodes, width=width, heads=heads)
        directed = displacement != "none"
        self.nodes, self.edges, self.rebuild, self.seed = nodes, edges, rebuild, seed
        self.rings = tuple(rings) if directed else (max(rings),)
        self.sectors = sectors if directed else 1
        self.neighbours = neighbours
        spatial = relation_count(self.rings, self.sectors)
        self.relations = (
            spatial if edges in ("both", "spatial", "random") else 0,
            self.sectors if edges in ("both", "similarity") else 0,
        )
        extra = (spatial + self.sectors) * width // 2 if edges == "none" else 0
        talk = {"attention": attention, "bias": displacement == "bias", "heads": heads}
        self.blocks = nn.ModuleList(
            RefinementBlock(width, relations=self.relations, hidden=2 * width + extra, **talk)
            for _ in range(blocks)
        )
        self.score = nn.Conv2d(channels, 1, kernel_size=1) if select == "learned" else None
        self.read_in = nn.Linear(channels, width)
        self.read_out = nn.Linear(width, channels)
        nn.init.normal_(self.read_out.weight, std=start)
        nn.init.zeros_(self.read_out.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, C, H, W) → (B, C, H, W); ``mask`` (B, H, W) bool is True where a cell is real."""
        if not self.blocks:
            return x
        index, states, _ = self.trace(x, mask)
        written = self.read_out(states[-1])  # (B, K, C)
        if self.score is not None:
            written = written * self._scores(x).gather(1, index)[..., None].sigmoid()
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
            if not passed or (self.rebuild and self.relations[1]):
                similar = self._similar(states[-1], around, valid)
            passed.append((fixed, similar))
            states.append(block(states[-1], passed[-1]))
        return index, states, passed

    def _scores(self, x: Tensor) -> Tensor:
        """(B, N): what the nodes are selected by."""
        scores = torch.linalg.vector_norm(x, dim=1) if self.score is None else self.score(x)
        return scores.flatten(1)

    def _displacements(self, index: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Ring and sector of each pair of nodes, and the sector alone: both (B or 1, K, K)."""
        if index.shape[1] == x.shape[2] * x.shape[3]:  # all cells: the same for the whole batch
            index = index[:1]
        place = torch.stack([index // x.shape[3], index % x.shape[3]], dim=-1).to(x.dtype)
        if self.edges == "random":
            draw = torch.Generator().manual_seed(self.seed)
            place = place[:, torch.randperm(place.shape[1], generator=draw).to(place.device)]
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


def _check_choice(name: str, got: str, choices: Sequence[str]) -> None:
    if got not in choices:
        raise ValueError(f"expected {name} one of {', '.join(choices)}; got {got!r}")


def _check_sizes(*, blocks: int, nodes: int | None, width: int, heads: int) -> None:
    if blocks < 0 or (nodes is not None and nodes < 1) or heads < 1 or width % heads:
        raise ValueError(
            "expected blocks ≥ 0, nodes ≥ 1 or None, and a width that heads divide; got "
            f"blocks={blocks}, nodes={nodes}, width={width}, heads={heads}"
        )
