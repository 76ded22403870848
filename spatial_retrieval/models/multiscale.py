"""Several scales of a photograph, one descriptor."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spatial_retrieval.layers.rebuildable import Rebuildable

__all__ = ["MeanOfScales"]


class MeanOfScales(Rebuildable, nn.Module):
    """The mean of the scales' descriptors, at unit length (Radenović et al. 2019, sec. 3.4)."""

    def rescale(self, images: Tensor, scale: float) -> Tensor:
        """(B, 3, h, w) → (B, 3, ≈ h·scale, ≈ w·scale), bilinear, with a low-pass when smaller.

        Raises:
            ValueError: if the scale is not positive.
        """
        if scale == 1:
            return images
        if not scale > 0:
            raise ValueError(f"expected scales > 0, got {scale}")
        size = [max(1, round(side * scale)) for side in images.shape[-2:]]
        return nn.functional.interpolate(
            images, size=size, mode="bilinear", align_corners=False, antialias=scale < 1
        )

    def forward(self, rows: Sequence[Tensor]) -> Tensor:
        """Unit rows (B, D) of each scale → (B, D) unit rows."""
        return nn.functional.normalize(torch.stack(list(rows)).sum(dim=0), dim=1)
