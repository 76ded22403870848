r"""One block of refinement: messages along all relations, then an MLP, both residual.

.. math::
    y = \mathrm{LN}(h), \qquad
    h \leftarrow h + \mathrm{GELU}\Big(W_0\,y + \sum_r W_r\,m_r(y)\Big), \qquad
    h \leftarrow h + \mathrm{FFN}(\mathrm{LN}(h))
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spatial_retrieval.layers.graph import pass_messages

__all__ = ["RefinementBlock"]


class RefinementBlock(nn.Module):
    """One pass of messages and an MLP, both residual: (B, K, D) → (B, K, D).

    Args:
        width: D.
        relations: number of relations of all kinds of edges together.
        hidden: width inside the MLP.
    """

    def __init__(self, width: int, *, relations: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.own = nn.Linear(width, width)
        self.messages = nn.Linear(relations * width, width, bias=False) if relations else None
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        )

    def forward(self, h: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Update the nodes ``h`` (B, K, D).

        Args:
            h: (B, K, D).
            weights: for each kind of edges (B or 1, R, K, K), all neighbours of a relation alike.
        """
        y = self.norm(h)
        update = self.own(y)
        if self.messages is not None:
            update = update + self.messages(self.heard(y, weights))
        h = h + nn.functional.gelu(update)
        return h + self.mlp(h)

    def heard(self, y: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """The messages of all relations: (B, K, D) → (B, K, R·D)."""
        return torch.cat([pass_messages(y, w) for w in weights if w.shape[1]], dim=-1)

    @torch.no_grad()
    def contributions(self, h: Tensor, weights: Sequence[Tensor], node: int) -> Tensor:
        """How much each neighbour adds to what one node hears, for pictures.

        Args:
            h: (B, K, D) before the block.
            weights: as in :meth:`forward`.
            node: i, whose messages are wanted.

        Returns:
            (B, R, K): the length of W_r w_ij (y_j − y_i); 0 where j is no neighbour.
        """
        y = self.norm(h)
        if self.messages is None:
            return y.new_zeros(len(y), 0, y.shape[1])
        away = y - y[:, node : node + 1]  # (B, K, D)
        rows = [w[:, :, node].expand(len(y), -1, -1) for w in weights]  # each (B, R, K)
        said = torch.einsum("brj,bjd->brjd", torch.cat(rows, dim=1).to(y.dtype), away)
        mix = self.messages.weight.unflatten(1, (said.shape[1], -1))  # (D, R, D)
        return torch.einsum("brjd,erd->brje", said, mix).norm(dim=-1)
