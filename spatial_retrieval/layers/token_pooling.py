"""Pooling for transformers: the mean of signed cells, or the class token.

After a layer norm about half of a map's values are negative. GeM's clamp would drop them, so maps
of transformers are averaged (SPoC, Babenko and Lempitsky, ICCV 2015) or, where a network has a
class token, described by it, as their authors do (Dosovitskiy et al. 2021; Oquab et al. 2023).
"""

from torch import Tensor, nn

from spatial_retrieval.layers.pooling import spoc
from spatial_retrieval.layers.rebuildable import Rebuildable

__all__ = ["ClassToken", "MeanPooling"]


class MeanPooling(Rebuildable, nn.Module):
    """The mean over cells: (B, C, H, W) → (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map."""
        return spoc(x)


class ClassToken(Rebuildable, nn.Module):
    """The class token in place of a pooled map: (B, C, H, W), (B, C, 1, 1) → (B, C)."""

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        """Take the token; the map is there for those who want to look at it."""
        if token.ndim != 4 or token.shape[-2:] != (1, 1):
            raise ValueError(f"expected a token (B, C, 1, 1), got {tuple(token.shape)}")
        return token.flatten(1)
