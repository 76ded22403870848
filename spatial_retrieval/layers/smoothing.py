r"""Learnable Smoothing: every cell chooses the kernel it is smoothed with.

A generator gives each cell p of a map x a kernel feature f ∈ ℝᵈ, a bandwidth a ≥ 0 and a
self-confidence c ∈ [0, 1]. Over the K×K neighbourhood q of p, as far as it lies on the map,

.. math::
    w_{pq} = \begin{cases} c_p & q = p \\ \exp(-a_p \lVert f_p - f_q \rVert^2) & q \ne p \end{cases}
    \qquad y_p = \frac{\sum_q w_{pq}\, x_q}{\sum_q w_{pq} + \varepsilon}

A larger a makes the kernel narrower. The weight c of the cell itself is free of its distance (which
is 0): an outlier that sets c = 0 is replaced by what its neighbours agree on.

The kernel is that of Işık, Mullia, Fisher, Eisenmann, Gharbi: *Interactive Monte Carlo Denoising
using Affinity of Neural Features*, ACM Transactions on Graphics 40(4), 2021, eq. 4 and 6, there
for noisy pixels, here for the cells of a feature map. Known filters are its limits:

===========================  ==================================================
a = 0, c = 1                 average pooling without padding
a → ∞, c = 1                 the identity (where neighbours differ in f)
a → ∞, c = 0                 the cell is rejected: y = 0
f = coordinates, c = 1       a Gaussian filter, variance 1/(2a)
f = (coordinates, value)     a bilateral filter
===========================  ==================================================
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatial_retrieval.layers.rebuildable import Rebuildable
from spatial_retrieval.layers.smoothing_checks import (
    check_kernel,
    check_map,
    check_same_grid,
    check_size,
)
from spatial_retrieval.layers.smoothing_kernels import aggregate, inside, squared_distances

__all__ = ["LearnableSmoothing", "SmoothingKernel", "smooth", "smooth_by", "smoothing_weights"]


def smoothing_weights(
    f: Tensor, a: Tensor, c: Tensor, *, kernel_size: int, dilation: int = 1
) -> Tensor:
    """The kernel w of every cell.

    Args:
        f: (B, d, H, W), kernel features.
        a: (B, 1, H, W), bandwidths ≥ 0.
        c: (B, 1, H, W), self-confidences in [0, 1].
        kernel_size: K, odd.
        dilation: distance of two neighbouring offsets, in cells.

    Returns:
        (B, K², H, W), offsets row by row, the centre at K²//2; 0 where a neighbour is off the map.

    Raises:
        ValueError: if shapes, K, the dilation or values are not as above, or not finite.

    Example:
        >>> one = torch.ones(1, 1, 2, 3)
        >>> smoothing_weights(one, one, 0.5 * one, kernel_size=3)[0, :, 0, 0]
        tensor([0.0000, 0.0000, 0.0000, 0.0000, 0.5000, 1.0000, 0.0000, 1.0000, 1.0000])
    """
    check_kernel(f, a, c, kernel_size, dilation)
    size = {"kernel_size": kernel_size, "dilation": dilation}
    w = torch.exp(-a * squared_distances(f, **size))
    w = w * inside(*f.shape[-2:], **size, like=f)
    centre = kernel_size**2 // 2
    return torch.cat([w[:, :centre], c.to(w.dtype), w[:, centre + 1 :]], dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class SmoothingKernel:
    """What a generator decided for a map: f (B, d, H, W), a and c (B, 1, H, W)."""

    f: Tensor
    a: Tensor
    c: Tensor
    kernel_size: int
    dilation: int = 1

    @property
    def weights(self) -> Tensor:
        """(B, K², H, W), as :func:`smoothing_weights`."""
        return smoothing_weights(
            self.f, self.a, self.c, kernel_size=self.kernel_size, dilation=self.dilation
        )


def smooth(
    x: Tensor,
    f: Tensor,
    a: Tensor,
    c: Tensor,
    *,
    kernel_size: int,
    dilation: int = 1,
) -> Tensor:
    """Smooth a map with the kernels that f, a and c describe.

    Args:
        x: (B, C, H, W), any memory layout.
        f: (B, d, H, W), kernel features.
        a: (B, 1, H, W), bandwidths ≥ 0.
        c: (B, 1, H, W), self-confidences in [0, 1].
        kernel_size: K, odd.
        dilation: distance of two neighbouring offsets, in cells.

    Returns:
        (B, C, H, W) of x's dtype, channels-last in memory; the kernels are at least float32.

    Raises:
        ValueError: if shapes, K, the dilation or values are not as above, or not finite.

    Example:
        >>> x = torch.tensor([[[[0.0, 3.0, 9.0]]]])
        >>> zero, one = torch.zeros(1, 1, 1, 3), torch.ones(1, 1, 1, 3)
        >>> smooth(x, x, zero, one, kernel_size=3)  # a = 0, c = 1: the mean of those on the map
        tensor([[[[1.5000, 4.0000, 6.0000]]]])
    """
    return smooth_by(x, SmoothingKernel(f, a, c, kernel_size, dilation))


def smooth_by(
    x: Tensor,
    kernel: SmoothingKernel,
    *,
    residual: float | Tensor = 1.0,
    burstiness: float = 0.0,
    eps: float = 1e-6,
) -> Tensor:
    """:func:`smooth` by a kernel, behind a gate and divided by how many likes a cell has.

    Args:
        x: (B, C, H, W), any memory layout.
        kernel: of x's batch and grid.
        residual: γ, the result is x + γ (y − x); mixed into the weights, where it costs nothing.
        burstiness: β ≥ 0, y is multiplied by (Σw + ε)^(−β): a cell among its likes counts less.
        eps: ε > 0, keeps a cell that rejects all, itself included, at 0 with a finite gradient.

    Returns and raises as :func:`smooth`.
    """
    check_same_grid(x, kernel.f)
    if burstiness < 0 or not eps > 0:
        raise ValueError(f"expected burstiness >= 0 and eps > 0, got {burstiness} and {eps}")
    size = {"kernel_size": kernel.kernel_size, "dilation": kernel.dilation}
    generated = (kernel.f, kernel.a, kernel.c)
    f, a, c = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in generated)
    w = smoothing_weights(f, a, c, **size)  # (B, K², H, W)
    total = w.sum(1, keepdim=True) + eps  # (B, 1, H, W)
    w = residual * w / total ** (1 + burstiness)
    centre = kernel.kernel_size**2 // 2
    own = w[:, centre : centre + 1] + (1 - residual)
    return aggregate(x, torch.cat([w[:, :centre], own, w[:, centre + 1 :]], dim=1), **size)


class LearnableSmoothing(Rebuildable, nn.Module):
    """Learnable Smoothing S with its generator, behind a gate: x ← x + γ (S(x) − x) per stage.

    The generator is a 1×1 convolution to ``hidden`` channels, GELU, and a 1×1 convolution to f, a
    and c of every stage; a is kept ≥ 0 by softplus, c in [0, 1] by a sigmoid. It starts at a ≈ 1
    and c ≈ ½, where all gradients flow, and the gate γ at ``residual``: small, so that an untrained
    layer hardly disturbs a trained backbone, yet not 0, at which the generator would not learn.

    Args:
        channels: C of the map.
        kernel_size: K, odd; 3, 5 or 7 are usual.
        feature_dim: d, the length of f.
        hidden: width of the generator.
        dilations: one smoothing after the other, each with kernels of its own; (1, 2, 4) reaches
            far at little cost.
        residual: the learned gate γ of each stage at the start; None leaves it away: S(x) itself.

    Example:
        >>> LearnableSmoothing(64, kernel_size=5)(torch.rand(2, 64, 7, 9)).shape
        torch.Size([2, 64, 7, 9])
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int = 3,
        feature_dim: int = 16,
        hidden: int = 64,
        dilations: tuple[int, ...] = (1,),
        residual: float | None = 0.1,
    ) -> None:
        super().__init__()
        if min(channels, feature_dim, hidden) < 1 or not dilations:
            raise ValueError(
                "expected channels, feature_dim, hidden >= 1 and at least one dilation, "
                f"got {channels}, {feature_dim}, {hidden} and {dilations}"
            )
        for dilation in dilations:
            check_size(kernel_size, dilation)
        self.kernel_size, self.dilations = kernel_size, tuple(dilations)
        self.feature_dim = feature_dim
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.head = nn.Conv2d(hidden, len(dilations) * (feature_dim + 2), 1)
        gates = None if residual is None else torch.full((len(dilations),), float(residual))
        self.residual = None if gates is None else nn.Parameter(gates)
        nn.init.zeros_(self.head.bias)
        with torch.no_grad():  # softplus(0.5413) = 1
            self.head.bias.view(len(dilations), -1)[:, feature_dim] = 0.5413

    def kernels(self, x: Tensor) -> tuple[SmoothingKernel, ...]:
        """The kernels of each stage, read from x (B, C, H, W)."""
        check_map("x", x)
        parts = self.head(F.gelu(self.reduce(x))).chunk(len(self.dilations), dim=1)
        split = [part.split([self.feature_dim, 1, 1], dim=1) for part in parts]
        return tuple(
            SmoothingKernel(f, F.softplus(a), c.sigmoid(), self.kernel_size, dilation)
            for (f, a, c), dilation in zip(split, self.dilations, strict=True)
        )

    def kernel(self, x: Tensor) -> SmoothingKernel:
        """The kernels of the first stage, for a look at f, a, c and the weights."""
        return self.kernels(x)[0]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W), channels-last in memory."""
        for stage, k in enumerate(self.kernels(x)):
            gate = 1.0 if self.residual is None else self.residual[stage]
            x = smooth_by(x, k, residual=gate)
        return x
