r"""SALAD: DINOv2's cells assigned to clusters by optimal transport.

Paper: Izquierdo, Civera, *Optimal Transport Aggregation for Visual Place Recognition*, CVPR 2024
(arXiv 2311.15937). Repository: https://github.com/serizba/salad, code GPL-3.0 (from memory,
unverified): none of it is used here, only the tensors' names; weights as a release file.

Published (recall at 25 m, photographs resized to 322 × 322, one scale): see the paper's tables.

For N cells and M clusters, scores S (M, N) and a dustbin's score z as row M + 1::

    log P = S + u + v        u, v by three rounds of Sinkhorn: rows sum to 1 (the dustbin to N − M),
                             columns to 1
    V_m   = unit(Σ_n P_mn f_n)                               (M, d)
    y     = unit([unit(t); V])                               t the class token, shrunk
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spatial_retrieval.layers.rebuildable import Rebuildable
from spatial_retrieval.models.checkpoints.adopted import Adopted, Protocol
from spatial_retrieval.models.checkpoints.assemble import assemble
from spatial_retrieval.models.checkpoints.dinov2 import DINO_RULES, DINOv2, dino_arguments
from spatial_retrieval.models.checkpoints.tensors import sort_out

__all__ = [
    "KIND",
    "OptimalTransportAggregation",
    "adopt",
    "aggregation_arguments",
    "assign",
    "recognises",
]

KIND = "salad"
CARD = {
    "name": "DINOv2 SALAD",
    "paper": "Izquierdo, Civera: Optimal Transport Aggregation for Visual Place Recognition, "
    "CVPR 2024, arXiv 2311.15937",
    "repository": "https://github.com/serizba/salad",
    "code_licence": "GPL-3.0 (from memory, unverified)",
    "weights_licence": "none stated next to the code's",
    "training_data": "GSV-Cities",
    "published": {"recall at 25 m": "see the paper's tables; not copied here"},
}


def assign(scores: Tensor, dustbin: Tensor, rounds: int = 3) -> Tensor:
    """Assign N cells to M < N clusters and a dustbin, by Sinkhorn's rounds on logarithms.

    Args:
        scores: (B, M, N).
        dustbin: one number, every cell's score for the dustbin.
        rounds: of scaling rows, then columns.

    Returns:
        (B, M, N): what share of a cell goes to each cluster; the dustbin's row is dropped.

    Raises:
        ValueError: if there are not more cells than clusters.
    """
    if scores.ndim != 3 or scores.shape[1] >= scores.shape[2]:
        raise ValueError(
            "expected scores (B, M, N) of more cells than clusters, N > M, got "
            f"{tuple(scores.shape)}; use a larger image"
        )
    batch, clusters, cells = scores.shape
    scores = torch.cat([scores, dustbin.reshape(1, 1, 1).expand(batch, 1, cells)], dim=1)
    rows = scores.new_zeros(clusters + 1, 1)  # log of what each row sums to
    rows[-1] = math.log(cells - clusters)
    v = scores.new_zeros(batch, 1, cells)
    for _ in range(rounds):
        u = rows - torch.logsumexp(scores + v, dim=2, keepdim=True)  # (B, M + 1, 1)
        v = -torch.logsumexp(scores + u, dim=1, keepdim=True)  # (B, 1, N)
    return (scores + u + v).exp()[:, :-1]


class OptimalTransportAggregation(Rebuildable, nn.Module):
    """SALAD's pooling; its state dict has the published names.

    Args:
        channels: C of the map and the token.
        clusters: M.
        cluster_dim: d, what each cell is shrunk to.
        token_dim: what the class token is shrunk to.
        hidden: width of the three perceptrons in between.
    """

    def __init__(
        self,
        *,
        channels: int = 768,
        clusters: int = 64,
        cluster_dim: int = 128,
        token_dim: int = 256,
        hidden: int = 512,
    ) -> None:
        super().__init__()
        self.width = token_dim + clusters * cluster_dim
        self.token_features = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, token_dim)
        )
        self.cluster_features = _perceptron(channels, hidden, cluster_dim)
        self.score = _perceptron(channels, hidden, clusters)
        self.dust_bin = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        """Map (B, C, H, W) and token (B, C, 1, 1) → (B, token_dim + d·M) unit rows."""
        f = self.cluster_features(x).flatten(2)  # (B, d, N)
        p = assign(self.score(x).flatten(2), self.dust_bin)  # (B, M, N)
        v = nn.functional.normalize(torch.einsum("bdn,bmn->bdm", f, p), dim=1)
        t = nn.functional.normalize(self.token_features(token.flatten(1)), dim=1)
        return nn.functional.normalize(torch.cat([t, v.flatten(1)], dim=1), dim=1)


def _perceptron(channels: int, hidden: int, out: int) -> nn.Sequential:
    """Two 1×1 convolutions, numbered as the published ones."""
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1), nn.Dropout(0.3), nn.ReLU(), nn.Conv2d(hidden, out, 1)
    )


def aggregation_arguments(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read :class:`OptimalTransportAggregation`'s arguments off its tensors.

    Raises:
        ValueError: if one that tells a size is missing.
    """
    names = (
        "token_features.0.weight",
        "token_features.2.weight",
        "cluster_features.3.weight",
        "score.3.weight",
    )
    if missing := [n for n in names if n not in tensors or tensors[n].ndim < 2]:
        raise ValueError(f"the checkpoint lacks {missing[0]} of the aggregation")
    (hidden, channels), token, cluster, score = (tensors[n].shape[:2] for n in names)
    return {
        "channels": channels,
        "clusters": score[0],
        "cluster_dim": cluster[0],
        "token_dim": token[0],
        "hidden": hidden,
    }


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the names of a DINOv2 with SALAD behind it."""
    return "aggregator.dust_bin" in state


def adopt(state: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> Adopted:
    """Take over a DINOv2 SALAD network; ``meta`` is not read.

    Raises:
        ValueError: if a tensor is unknown, missing, or of another shape.
    """
    tensors = sort_out(state, (*DINO_RULES, (r"aggregator\.(.+)", r"pooling.\1")), KIND)
    network = (DINOv2, dino_arguments(tensors.parts.get("network", {})))
    aggregation = aggregation_arguments(tensors.parts.get("pooling", {}))
    pooling = (OptimalTransportAggregation, aggregation)
    return assemble(KIND, tensors, network, pooling, Protocol(size=322, square=True), CARD)
