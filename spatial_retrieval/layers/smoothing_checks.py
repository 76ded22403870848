"""What smoothing refuses, in words that are enough to mend the call."""

import torch
from torch import Tensor

__all__ = ["check_same_grid", "check_kernel", "check_map", "check_size"]


def check_kernel(f: Tensor, a: Tensor, c: Tensor, kernel_size: int, dilation: int) -> None:
    """Refuse kernels that :func:`smoothing_weights` cannot be computed from."""
    check_size(kernel_size, dilation)
    check_map("f", f)
    expected = (f.shape[0], 1, *f.shape[2:])
    for name, t in (("a", a), ("c", c)):
        if tuple(t.shape) != expected:
            raise ValueError(
                f"expected {name} (B, 1, H, W) = {expected} next to f {tuple(f.shape)}, "
                f"got {tuple(t.shape)}"
            )
        check_map(name, t)
    if a.min() < 0:
        raise ValueError(f"expected a >= 0 (a softplus gives that), got {a.min().item()}")
    if c.min() < 0 or c.max() > 1:
        found = f"{c.min().item()} to {c.max().item()}"
        raise ValueError(f"expected c in [0, 1] (a sigmoid gives that), got {found}")


def check_same_grid(x: Tensor, f: Tensor) -> None:
    """Refuse kernel features f that do not lie on the grid of the map x."""
    check_map("x", x)
    if x.shape[:1] + x.shape[2:] != f.shape[:1] + f.shape[2:]:
        raise ValueError(
            f"expected f of x's batch and grid, (B, d, H, W) next to x {tuple(x.shape)}, "
            f"got f {tuple(f.shape)}"
        )


def check_size(kernel_size: int, dilation: int) -> None:
    """Refuse an even or empty neighbourhood."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"expected an odd kernel_size >= 1, got {kernel_size}")
    if dilation < 1:
        raise ValueError(f"expected dilation >= 1, got {dilation}")


def check_map(name: str, t: Tensor) -> None:
    """Refuse what is not a map of finite floats (B, channels, H, W) with at least one cell."""
    if t.ndim != 4 or t.numel() == 0 or not t.is_floating_point():
        raise ValueError(
            f"expected {name} as floats (B, channels, H, W), got {t.dtype} {tuple(t.shape)}"
        )
    total = t.detach().sum(dtype=torch.promote_types(t.dtype, torch.float32))
    if not total.isfinite():  # the sum instead of each value: no second map, one pass
        raise ValueError(f"expected finite values in {name}, got NaN or infinity")
