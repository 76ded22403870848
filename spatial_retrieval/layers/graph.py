r"""A graph over the cells of a feature map: its nodes, edges and messages.

With nodes :math:`i, j`, their rows and columns :math:`p_i`, and a relation r that holds for some
pairs, one pass of messages is the mean difference over the neighbours of that relation:

.. math:: m_{ir} = \frac{1}{|E_r(i)|} \sum_{j \in E_r(i)} w_{ij}\,(y_j - y_i),
          \qquad m_{ir} = 0 \text{ where } E_r(i) = \varnothing .

The mean over neighbours is the graph convolution of Kipf & Welling (*Semi-Supervised
Classification with Graph Convolutional Networks*, ICLR 2017, §2, normalised by rows); the
difference is the edge feature of DGCNN (Wang et al., *Dynamic Graph CNN for Learning on Point
Clouds*, TOG 2019, §3.2); one weight matrix per relation is R-GCN's (Schlichtkrull et al.,
*Modeling Relational Data with Graph Convolutional Networks*, ESWC 2018, eq. 2). The relations here
are rings and sectors of the displacement :math:`p_j - p_i`, so the side that a neighbour lies on
is kept.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "displacement_bins",
    "edge_weights",
    "pass_messages",
    "relation_count",
    "select_nodes",
    "similarity_edges",
    "spatial_edges",
]


def select_nodes(score: Tensor, nodes: int | None, mask: Tensor | None = None) -> Tensor:
    """The cells with the highest score, in reading order.

    Args:
        score: (B, N), one number per cell.
        nodes: K ≥ 1, how many to take; None or more than N takes all.
        mask: (B, N) bool, True where a cell is real; padding comes last.

    Returns:
        (B, K) indices into the N cells, rising. Ties go to the earlier cell.

    Example:
        >>> select_nodes(torch.tensor([[1.0, 5.0, 2.0, 5.0]]), 2)
        tensor([[1, 3]])
    """
    if score.ndim != 2 or (nodes is not None and nodes < 1):
        raise ValueError(f"expected score (B, N), nodes ≥ 1; got {tuple(score.shape)}, {nodes}")
    batch, cells = score.shape
    if nodes is None or nodes >= cells:
        return torch.arange(cells, device=score.device).expand(batch, cells)
    if mask is not None:
        score = score.masked_fill(~mask, -torch.inf)
    order = score.sort(dim=1, descending=True, stable=True).indices
    return order[:, :nodes].sort(dim=1).values


def relation_count(rings: Sequence[float], sectors: int) -> int:
    """Number of spatial relations: the nearest ring is one, each further ring has its sectors."""
    return 1 + (len(rings) - 1) * sectors


def displacement_bins(position: Tensor, *, rings: Sequence[float], sectors: int = 4) -> Tensor:
    """For each pair of nodes the relation that its displacement falls in.

    Args:
        position: (B, K, 2) rows and columns, in cells.
        rings: rising radii in cells. Up to the first: one relation, number 0. Each further ring:
            ``sectors`` relations, numbered from the right and on clockwise.
        sectors: 1 (no direction), 4 (right, down, left, up) or 8 (with diagonals).

    Returns:
        (B, K, K) integers; −1 beyond the last radius and for a node with itself.

    Example:
        >>> displacement_bins(torch.tensor([[[0.0, 0.0], [0.0, 3.0]]]), rings=(1.5, 4.0))
        tensor([[[-1,  1],
                 [ 3, -1]]])
    """
    radii = list(rings)
    if sectors not in (1, 4, 8) or not radii or radii != sorted(set(radii)) or radii[0] <= 0:
        raise ValueError(
            f"expected sectors 1, 4 or 8 and rising radii > 0, got {sectors} and {tuple(rings)}"
        )
    down, right = (position[:, None] - position[:, :, None]).unbind(dim=-1)  # (B, K, K): j from i
    limits = torch.tensor([r * r for r in radii], device=position.device, dtype=position.dtype)
    square = down.square() + right.square()
    ring = torch.bucketize(square, limits)  # (B, K, K): 0 = nearest, len(rings) = beyond
    bins = torch.where(ring == 0, 0, 1 + (ring - 1) * sectors + _sector(down, right, sectors))
    return bins.masked_fill((ring == len(radii)) | (square == 0), -1)


def spatial_edges(bins: Tensor, relations: int, valid: Tensor | None = None) -> Tensor:
    """One mask per relation: (B, K, K) of :func:`displacement_bins` → (B, R, K, K) bool.

    Args:
        bins: (B, K, K).
        relations: R, see :func:`relation_count`.
        valid: (B, K) bool; a node that isn't valid is nobody's neighbour.
    """
    numbers = torch.arange(relations, device=bins.device).reshape(-1, 1, 1)
    edges = bins[:, None] == numbers  # (B, R, K, K)
    return edges if valid is None else edges & valid[:, None, None]


def similarity_edges(y: Tensor, neighbours: int, valid: Tensor | None = None) -> Tensor:
    """The nearest nodes in feature space, by cosine: (B, K, D) → (B, K, K) bool.

    Args:
        y: (B, K, D) features of the nodes.
        neighbours: how many, ≥ 1; equally near ones are all taken, a node itself never is.
        valid: (B, K) bool; a node that isn't valid is nobody's neighbour.
    """
    if neighbours < 1:
        raise ValueError(f"expected neighbours ≥ 1, got {neighbours}")
    unit = torch.nn.functional.normalize(y.detach(), dim=-1)
    cosine = unit @ unit.mT  # (B, K, K)
    itself = torch.eye(y.shape[1], dtype=torch.bool, device=y.device)
    hidden = itself if valid is None else itself | ~valid[:, None]
    cosine = cosine.masked_fill(hidden, -torch.inf)
    last = cosine.topk(min(neighbours, y.shape[1]), dim=-1).values[..., -1:]
    return (cosine >= last) & ~hidden


def edge_weights(edges: Tensor) -> Tensor:
    """All neighbours count the same: (B, R, K, K) bool → rows that sum to 1, or to 0 without any.

    Args:
        edges: does i (row) hear j (column)?
    """
    weights = edges.to(torch.get_default_dtype())
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=1)


def pass_messages(y: Tensor, weights: Tensor) -> Tensor:
    """The messages of every node, one relation after the other.

    Args:
        y: (B, K, D) features of the nodes.
        weights: (B or 1, R, K, K) of :func:`edge_weights`.

    Returns:
        (B, K, R·D): weighted mean of the neighbours minus the node itself; 0 where there are none.

    Example:
        >>> y = torch.tensor([[[1.0], [4.0]]])
        >>> pass_messages(y, torch.tensor([[[[0.0, 1.0], [0.0, 0.0]]]])).flatten()
        tensor([3., 0.])
    """
    weights = weights.to(y.dtype)
    heard = weights.sum(dim=-1)  # (B or 1, R, K): 1 or 0
    mean = (weights.flatten(1, 2) @ y).unflatten(1, (weights.shape[1], -1))  # (B, R, K, D)
    difference = mean - y[:, None] * heard[..., None]
    return difference.transpose(1, 2).flatten(2)


def _sector(down: Tensor, right: Tensor, sectors: int) -> Tensor:
    """Number of the sector, 0 to the right and on clockwise; symmetric under mirroring."""
    if sectors == 1:
        return torch.zeros_like(down, dtype=torch.long)
    across = down.abs() <= right.abs()
    if sectors == 4:
        return torch.where(across, 2 * (right < 0), 1 + 2 * (down < 0)).long()
    steep, flat = down.abs() >= 2.5 * right.abs(), right.abs() >= 2.5 * down.abs()
    straight = torch.where(flat, 4 * (right < 0), 2 + 4 * (down < 0))
    lower = torch.where(right > 0, 1, 3)
    upper = torch.where(right > 0, 7, 5)
    return torch.where(steep | flat, straight, torch.where(down > 0, lower, upper)).long()
