"""GeM as the published networks place it: between two normalisations, or after one.

The formula is :func:`spatial_retrieval.layers.pooling.gem`; here are its neighbours.
"""

from torch import Tensor, nn

from spatial_retrieval.layers.pooling import GeM

__all__ = ["UnitCellGeM", "UnitGeM"]


class UnitGeM(GeM):
    """GeM, then unit length (cirtorch, SOLAR): (B, C, H, W) → (B, C) unit rows."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map."""
        return nn.functional.normalize(super().forward(x), dim=1)


class UnitCellGeM(GeM):
    """Every cell to unit length, then GeM (CosPlace, EigenPlaces): (B, C, H, W) → (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map."""
        return super().forward(nn.functional.normalize(x, dim=1))
