r"""Controls for the graph: two plain convolutions, and the graph without its edges.

.. math:: x \leftarrow x + o\big(\phi(w_2 * \phi(w_1 * x))\big), \qquad
          \phi = \mathrm{GELU} \circ \mathrm{GN}

What a directional graph gains over an MLP on single cells (:class:`MLPControl`) says little about
graphs before it is compared with convolutions, which keep the side that neighbours lie on, too.
GN is group normalisation with one group (Wu & He, ECCV 2018), GELU is of Hendrycks & Gimpel (2016).
"""

from torch import Tensor, nn

from spatial_retrieval.layers.graph import relation_count
from spatial_retrieval.layers.rebuildable import Rebuildable
from spatial_retrieval.layers.refinement import SpatialContextRefinement
from spatial_retrieval.layers.refinement_block import RefinementBlock

__all__ = ["ConvolutionControl", "MLPControl"]


class ConvolutionControl(Rebuildable, nn.Module):
    """Two 3×3 convolutions and a 1×1 read-out, added to the map.

    Args:
        channels: C of the map.
        width: channels between the convolutions.
        start: standard deviation of the read-out's first weights; 0 starts at the map as it came.

    Example:
        >>> import torch
        >>> ConvolutionControl(32)(torch.rand(2, 32, 7, 9)).shape
        torch.Size([2, 32, 7, 9])
    """

    def __init__(self, channels: int, *, width: int = 64, start: float = 0.02) -> None:
        super().__init__()
        if width < 1 or start < 0:
            raise ValueError(f"expected width ≥ 1 and start ≥ 0, got {width} and {start}")
        self.convolutions = nn.Sequential(
            *_convolution(channels, width),
            *_convolution(width, width),
        )
        self.read_out = nn.Conv2d(width, channels, kernel_size=1)
        nn.init.normal_(self.read_out.weight, std=start)
        nn.init.zeros_(self.read_out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        channels = self.read_out.out_channels
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"expected a map (B, C = {channels}, H, W), got {tuple(x.shape)}")
        return x + self.read_out(self.convolutions(x)).to(x.dtype)


class MLPControl(SpatialContextRefinement):
    """The refinement without edges: an MLP on each node, widened to as many parameters.

    Arguments are those of :class:`~spatial_retrieval.layers.refinement.SpatialContextRefinement`;
    ``rings`` and ``sectors`` only decide how many parameters are made up for.
    """

    def _relations(self) -> tuple[int, int]:
        return 0, 0

    def _block(self, width: int) -> nn.Module:
        spared = (relation_count(self.rings, self.sectors) + self.sectors) * width // 2
        return RefinementBlock(width, relations=0, hidden=2 * width + spared)


def _convolution(channels: int, width: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, width, kernel_size=3, padding=1)
    return convolution, nn.GroupNorm(1, width), nn.GELU()
