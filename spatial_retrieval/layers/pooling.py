r"""Generalised-mean pooling (GeM).

.. math:: y_c = \Big(\frac{1}{HW}\sum_{h,w} \max(x_{chw}, \varepsilon)^{p}\Big)^{1/p}

p = 1 is the average (SPoC), p → ∞ the maximum (MAC). Radenović, Tolias, Chum: *Fine-tuning CNN
Image Retrieval with No Human Annotation*, TPAMI 2019, eq. 2.
"""

import torch
from torch import Tensor, nn

from spatial_retrieval.layers.rebuildable import Rebuildable

__all__ = ["GeM", "gem", "mac", "spoc"]


def gem(x: Tensor, p: float | Tensor = 3.0, eps: float = 1e-6) -> Tensor:
    """Pool a feature map to one vector: clamp, power, mean, root.

    Args:
        x: (B, C, H, W), read as non-negative: values below ``eps`` count as ``eps``.
        p: > 0, one number or one per channel (C,).
        eps: lower clamp, keeps powers and gradients finite.

    Returns:
        (B, C).

    Raises:
        ValueError: if ``x`` is not (B, C, H, W) with at least one cell, or ``p`` is not positive.

    Example:
        >>> gem(torch.tensor([[[[1.0, 3.0]]]]), p=1.0)
        tensor([[2.]])
    """
    _check_map(x)
    p = torch.as_tensor(p, dtype=x.dtype, device=x.device)
    if p.ndim > 1 or (p.ndim == 1 and p.numel() not in (1, x.shape[1])) or not bool((p > 0).all()):
        raise ValueError(f"expected p > 0, one number or C = {x.shape[1]} of them, got {p}")
    # Dividing by the maximum first keeps x**p finite for any p: gem(s·x) = s·gem(x).
    top = x.amax(dim=(-2, -1), keepdim=True).clamp(min=eps).detach()  # (B, C, 1, 1)
    power = p.reshape(-1, 1, 1)  # (C or 1, 1, 1)
    mean = (x.clamp(min=eps) / top).pow(power).mean(dim=(-2, -1))  # (B, C)
    return top.flatten(1) * mean.pow(1 / p)


def spoc(x: Tensor) -> Tensor:
    """Average pooling (B, C, H, W) → (B, C): GeM's limit p = 1 on a non-negative map."""
    _check_map(x)
    return x.mean(dim=(-2, -1))


def mac(x: Tensor) -> Tensor:
    """Maximum pooling (B, C, H, W) → (B, C): GeM's limit p → ∞."""
    _check_map(x)
    return x.amax(dim=(-2, -1))


class GeM(Rebuildable, nn.Module):
    """:func:`gem` with its own p: fixed, learned, or learned per channel.

    Args:
        p: start value, > 0.
        learnable: whether p is trained.
        channels: one p for each of so many channels; None: one p for all.
    """

    def __init__(
        self, p: float = 3.0, *, learnable: bool = False, channels: int | None = None
    ) -> None:
        super().__init__()
        if not p > 0:
            raise ValueError(f"expected p > 0, got {p}")
        start = torch.full((channels or 1,), float(p))
        self.p = nn.Parameter(start, requires_grad=learnable)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C)."""
        return gem(x, self.p.clamp(min=0.1) if self.p.requires_grad else self.p)


def _check_map(x: Tensor) -> None:
    if x.ndim != 4 or x.shape[-1] * x.shape[-2] == 0:
        raise ValueError(f"expected a feature map (B, C, H, W) with cells, got {tuple(x.shape)}")
