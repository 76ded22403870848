r"""One block of refinement: messages along all relations, then an MLP, both residual.

.. math::
    y = \mathrm{LN}(h), \qquad
    h \leftarrow h + \mathrm{GELU}\Big(W_0\,y + \sum_r W_r\,m_r(y)\Big), \qquad
    h \leftarrow h + \mathrm{FFN}(\mathrm{LN}(h))

With attention the weights of the mean :math:`m_r` are a softmax of :math:`q_i^\top k_j / \sqrt d`
over the neighbours (Veličković et al., *Graph Attention Networks*, ICLR 2018, in the dot-product
form of Vaswani et al., 2017); with a bias, a number per relation and head is added to the logits,
and all relations of a kind share one mean (Shaw et al., *Self-Attention with Relative Position
Representations*, NAACL 2018, bins instead of clipped offsets).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spatial_retrieval.layers.graph import edge_weights, propagate

__all__ = ["RefinementBlock"]


class RefinementBlock(nn.Module):
    """One pass of messages and an MLP, both residual: (B, K, D) → (B, K, D).

    Args:
        width: D.
        relations: number of relations of each kind of edges.
        hidden: width inside the MLP.
        attention: weigh neighbours by queries and keys.
        bias: one average per kind of edges, its weights learned for each relation and head.
        heads: T of attention and bias.
    """

    def __init__(
        self,
        width: int,
        *,
        relations: Sequence[int],
        hidden: int,
        attention: bool,
        bias: bool,
        heads: int,
    ) -> None:
        super().__init__()
        self.heads, self.relations = heads, tuple(relations)
        messages = sum(min(r, 1) if bias else r for r in relations)
        self.norm = nn.LayerNorm(width)
        self.own = nn.Linear(width, width)
        self.messages = nn.Linear(messages * width, width, bias=False) if messages else None
        self.query_key = nn.Linear(width, 2 * width) if attention else None
        self.bias = nn.Parameter(torch.zeros(heads, sum(relations))) if bias else None
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
            heard = [propagate(y, w) for w in self._weighed(y, weights)]
            update = update + self.messages(torch.cat(heard, dim=-1))
        h = h + nn.functional.gelu(update)
        return h + self.mlp(h)

    def _weighed(self, y: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
        """The weights after attention and bias, where there are any."""
        used = [w for w in weights if w.shape[1]]
        if self.query_key is None and self.bias is None:
            return used
        logits = y.new_zeros(1, self.heads, y.shape[1], y.shape[1])  # (B or 1, T, K, K)
        if self.query_key is not None:
            query, key = self.query_key(y).unflatten(-1, (2, self.heads, -1)).unbind(dim=2)
            scale = query.shape[-1] ** -0.5
            logits = torch.einsum("bitd,bjtd->btij", query, key) * scale
        if self.bias is None:
            return [edge_weights(w > 0, logits) for w in used]
        biases = self.bias.split([r for r in self.relations if r], dim=1)  # each (T, R)
        return [
            edge_weights(
                (w > 0).any(dim=1, keepdim=True),
                logits + torch.einsum("brij,tr->btij", (w > 0).to(y.dtype), b),
            )
            for w, b in zip(used, biases, strict=True)
        ]

    @torch.no_grad()
    def contributions(self, h: Tensor, weights: Sequence[Tensor], node: int) -> Tensor:
        """How much each neighbour adds to what one node hears, for pictures.

        Args:
            h: (B, K, D) before the block.
            weights: as in :meth:`forward`.
            node: i, whose messages are asked for.

        Returns:
            (B, R, K): the length of W_r w_ij (y_j − y_i); 0 where j is no neighbour.
        """
        y = self.norm(h)
        away = y - y[:, node : node + 1]  # (B, K, D)
        parts = []
        for w in self._weighed(y, weights) if self.messages is not None else ():
            w = (w if w.ndim == 5 else w[:, :, None])[..., node, :]  # (B or 1, R, T, K)
            by_head = away.unflatten(-1, (w.shape[2], -1))  # (B, K, T, D/T)
            parts.append(torch.einsum("brtj,bjtd->brjtd", w.expand(len(y), -1, -1, -1), by_head))
        if not parts:
            return y.new_zeros(len(y), 0, y.shape[1])
        said = torch.cat(parts, dim=1).flatten(-2)  # (B, R, K, D)
        mix = self.messages.weight.unflatten(1, (said.shape[1], -1))  # (D, R, D)
        return torch.einsum("brjd,erd->brje", said, mix).norm(dim=-1)
