from functools import partial

import pytest
import torch
from smoothing_oracle import GRIDS, random_inputs, unfold_smooth
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spatial_retrieval.layers.smoothing import smooth, smoothing_weights
from spatial_retrieval.layers.smoothing_kernels import (
    aggregate,
    correlate,
    inside,
    squared_distances,
    transpose,
)


@pytest.mark.parametrize(("batch", "height", "width", "size", "dilation"), GRIDS)
def test_primitives_are_adjoint(batch, height, width, size, dilation):
    x, g = random_inputs(batch, height, width)[0], random_inputs(batch, height, width, d=4)[1]
    w = torch.rand(batch, size**2, height, width, dtype=x.dtype)
    options = {"kernel_size": size, "dilation": dilation}
    value = (g * aggregate(x, w, **options)).sum()
    torch.testing.assert_close((w * correlate(g, x, **options)).sum(), value)
    back = aggregate(g, transpose(w, **options), **options)
    torch.testing.assert_close((x * back).sum(), value)


def test_only_the_gradients_asked_for_are_computed():
    x, f, a, c = random_inputs(1, 4, 4)
    w = smoothing_weights(f, a, c, kernel_size=3)
    for wanted, other in ((x, w), (w, x)):
        wanted.requires_grad_()
        aggregate(x, w, kernel_size=3).sum().backward()
        assert wanted.grad is not None and other.grad is None
        wanted.requires_grad_(False)
        wanted.grad = None
    g = torch.randn_like(x)
    for wanted, other in ((x, g), (g, x)):
        wanted.requires_grad_()
        correlate(g, x, kernel_size=3).sum().backward()
        assert wanted.grad is not None and other.grad is None
        wanted.requires_grad_(False)
        wanted.grad = None


def test_distances_far_from_the_origin_keep_their_digits():
    f = 1000 + torch.rand(1, 2, 3, 3)
    exact = squared_distances(f.double(), kernel_size=3).float()
    torch.testing.assert_close(squared_distances(f, kernel_size=3), exact)


def test_distances_beyond_the_border_are_zero_and_pull_at_nothing():
    f = torch.rand(2, 2, 3, 4, dtype=torch.float64).requires_grad_()
    on_map = inside(3, 4, kernel_size=3, dilation=2, like=f)
    assert not squared_distances(f, kernel_size=3, dilation=2)[:, ~on_map].any()
    distances = partial(squared_distances, kernel_size=3, dilation=2)
    assert torch.autograd.gradcheck(distances, f)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_stays_close(dtype):
    inputs = [t.to(dtype) for t in random_inputs(2, 9, 6)]
    inputs = [t.requires_grad_() for t in inputs]
    y = smooth(*inputs, kernel_size=3)
    assert y.dtype == dtype
    expected = smooth(*(t.detach().double() for t in inputs), kernel_size=3)
    torch.testing.assert_close(y.double(), expected, atol=10 * torch.finfo(dtype).eps, rtol=0.02)
    y.sum().backward()
    assert all(t.grad.dtype == dtype and torch.isfinite(t.grad).all() for t in inputs)


def test_kernels_of_half_precision_are_computed_in_float32():
    x, _, _, c = (t.half() for t in random_inputs(1, 5, 6))
    f = 300 * torch.arange(6.0).half().expand(1, 1, 5, 6)  # its square is beyond half precision
    a = torch.full_like(c, 1e-5)
    expected = smooth(*(t.double() for t in (x, f, a, c)), kernel_size=3)
    torch.testing.assert_close(
        smooth(x, f, a, c, kernel_size=3).double(), expected, atol=1e-2, rtol=0.02
    )


def test_autocast_does_not_lower_the_precision_of_what_is_given():
    given = [t.float().requires_grad_() for t in random_inputs(1, 9, 6)]
    expected = smooth(*given, kernel_size=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = smooth(*given, kernel_size=3)
    assert result.dtype == torch.float32
    assert torch.equal(result, expected)


class _Largest(TorchDispatchMode):
    """The most numbers that any tensor holds that is made inside: its storage, not its shape."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, Tensor):
                bytes_ = t.untyped_storage().nbytes()
                self.numel = max(self.numel, bytes_ // t.element_size())
        return out


def test_no_tensor_of_k_squared_maps_is_ever_made():
    inputs = [t.float().requires_grad_() for t in random_inputs(1, 24, 24, channels=256, d=8)]
    with _Largest() as fast:
        smooth(*inputs, kernel_size=7).sum().backward()
    assert fast.numel <= inputs[0].numel()
    with _Largest() as slow:  # the meter does see such a tensor when there is one
        unfold_smooth(*inputs, 7, 1)
    assert slow.numel >= 49 * inputs[0].numel()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_a_gpu(dtype):
    inputs = [t.to("cuda", dtype).requires_grad_() for t in random_inputs(2, 17, 12)]
    y = smooth(*inputs, kernel_size=5)
    expected = smooth(*(t.detach().double().cpu() for t in inputs), kernel_size=5)
    torch.testing.assert_close(y.double().cpu(), expected, atol=5e-3, rtol=5e-3)
    y.sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in inputs)
