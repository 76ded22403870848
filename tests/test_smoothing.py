import itertools
import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spatial_retrieval.layers.smoothing import LearnableSmoothing, smooth, smoothing_weights
from spatial_retrieval.layers.smoothing_kernels import (
    aggregate,
    correlate,
    squared_distances,
    transpose,
)

# batch, height, width, K, dilation: one cell, one row, one column, several uneven tiles, a kernel
# that is larger than the map, and dilations that leave holes
GRIDS = [
    (1, 1, 1, 3, 1),
    (1, 1, 9, 3, 1),
    (2, 11, 1, 5, 1),
    (3, 4, 3, 7, 1),
    (1, 9, 17, 3, 1),
    (3, 10, 9, 5, 1),
    (2, 9, 10, 3, 2),
    (1, 5, 12, 5, 3),
    (2, 3, 4, 1, 1),
]


def _inputs(
    batch: int, height: int, width: int, channels: int = 4, d: int = 3
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch + 10 * height + 100 * width)
    double = {"dtype": torch.float64, "generator": generator}
    x = torch.randn(batch, channels, height, width, **double)
    f = torch.randn(batch, d, height, width, **double)
    a = torch.rand(batch, 1, height, width, **double) + 0.1
    c = torch.rand(batch, 1, height, width, **double) * 0.8 + 0.1
    return x, f, a, c


def _neighbours(y: int, x: int, height: int, width: int, size: int, dilation: int):
    """(number of the offset, row, column) of the neighbours that are on the map."""
    for i, j in itertools.product(range(size), repeat=2):
        v, u = y + dilation * (i - size // 2), x + dilation * (j - size // 2)
        if 0 <= v < height and 0 <= u < width:
            yield i * size + j, v, u


def _slow_weights(f: Tensor, a: Tensor, c: Tensor, size: int, dilation: int) -> Tensor:
    batch, _, height, width = f.shape
    w = torch.zeros(batch, size**2, height, width, dtype=f.dtype)
    for b, y, x in itertools.product(range(batch), range(height), range(width)):
        for o, v, u in _neighbours(y, x, height, width, size, dilation):
            distance = sum(
                float(p - q) ** 2 for p, q in zip(f[b, :, y, x], f[b, :, v, u], strict=True)
            )
            alike = math.exp(-float(a[b, 0, y, x]) * distance)
            w[b, o, y, x] = c[b, 0, y, x] if (v, u) == (y, x) else alike
    return w


def _slow_smooth(
    x: Tensor, w: Tensor, size: int, dilation: int, eps: float = 1e-6, beta: float = 0.0
) -> Tensor:
    batch, _, height, width = x.shape
    out = torch.zeros_like(x)
    for b, i, j in itertools.product(range(batch), range(height), range(width)):
        total = 0.0
        for o, v, u in _neighbours(i, j, height, width, size, dilation):
            out[b, :, i, j] += w[b, o, i, j] * x[b, :, v, u]
            total += float(w[b, o, i, j])
        out[b, :, i, j] *= (total + eps) ** -(1 + beta)
    return out


def _unfold_smooth(x: Tensor, f: Tensor, a: Tensor, c: Tensor, size: int, dilation: int) -> Tensor:
    """The formula in plain differentiable operations: an oracle for the gradients."""
    batch, channels, height, width = x.shape
    options = {"dilation": dilation, "padding": dilation * (size // 2)}
    near = F.unfold(x, size, **options).view(batch, channels, -1, height, width)
    near_f = F.unfold(f, size, **options).view(batch, f.shape[1], -1, height, width)
    on_map = F.unfold(torch.ones_like(a), size, **options).view(batch, -1, height, width)
    w = torch.exp(-a * (near_f - f.unsqueeze(2)).square().sum(1)) * on_map
    is_centre = torch.arange(size**2).view(1, -1, 1, 1) == size**2 // 2
    w = torch.where(is_centre, c, w)
    return (near * w.unsqueeze(1)).sum(2) / (w.sum(1, keepdim=True) + 1e-6)


# --- the formula ---


@pytest.mark.parametrize(("batch", "height", "width", "size", "dilation"), GRIDS)
def test_weights_and_result_equal_plain_loops(batch, height, width, size, dilation):
    x, f, a, c = _inputs(batch, height, width)
    options = {"kernel_size": size, "dilation": dilation}
    w = _slow_weights(f, a, c, size, dilation)
    torch.testing.assert_close(smoothing_weights(f, a, c, **options), w)
    torch.testing.assert_close(smooth(x, f, a, c, **options), _slow_smooth(x, w, size, dilation))
    torch.testing.assert_close(
        smooth(x, f, a, c, **options, burstiness=0.5, eps=0.1),
        _slow_smooth(x, w, size, dilation, eps=0.1, beta=0.5),
    )


@pytest.mark.parametrize(("batch", "height", "width", "size", "dilation"), GRIDS)
def test_gradients_equal_those_of_the_plain_operations(batch, height, width, size, dilation):
    fast = [t.requires_grad_() for t in _inputs(batch, height, width)]
    slow = [t.detach().clone().requires_grad_() for t in fast]
    pull = torch.randn_like(fast[0])
    smooth(*fast, kernel_size=size, dilation=dilation).backward(pull)
    _unfold_smooth(*slow, size, dilation).backward(pull)
    for mine, theirs in zip(fast, slow, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-9, rtol=1e-6)


def _strided(x: Tensor) -> Tensor:
    return torch.stack([x, torch.full_like(x, 7.0)], dim=-1)[..., 0]


def _turned(x: Tensor) -> Tensor:
    return x.transpose(2, 3).contiguous().transpose(2, 3)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", [_strided, _turned, _channels_last])
def test_the_memory_layout_does_not_matter(layout):
    inputs = _inputs(2, 9, 11)
    moved = [layout(t) for t in inputs]
    assert not moved[0].is_contiguous()
    before = [t.clone() for t in moved]
    expected = smooth(*inputs, kernel_size=5)
    torch.testing.assert_close(smooth(*moved, kernel_size=5), expected)
    unchanged = [torch.equal(*pair) for pair in zip(moved, before, strict=True)]
    assert all(unchanged)


@pytest.mark.parametrize(("height", "width", "dilation"), [(1, 1, 1), (3, 2, 1), (2, 5, 2)])
def test_gradcheck(height, width, dilation):
    inputs = [t.requires_grad_() for t in _inputs(2, height, width, channels=2, d=2)]

    def function(*args: Tensor) -> Tensor:
        return smooth(*args, kernel_size=3, dilation=dilation, burstiness=0.3, eps=1e-3)

    assert torch.autograd.gradcheck(function, inputs)


def test_second_derivatives():
    inputs = [t.requires_grad_() for t in _inputs(1, 2, 3, channels=2, d=2)]
    assert torch.autograd.gradgradcheck(lambda *args: smooth(*args, kernel_size=3), inputs)


# --- the primitives ---


@pytest.mark.parametrize(("batch", "height", "width", "size", "dilation"), GRIDS)
def test_primitives_are_adjoint(batch, height, width, size, dilation):
    x, g = _inputs(batch, height, width)[0], _inputs(batch, height, width, d=4)[1]
    w = torch.rand(batch, size**2, height, width, dtype=x.dtype)
    options = {"kernel_size": size, "dilation": dilation}
    value = (g * aggregate(x, w, **options)).sum()
    torch.testing.assert_close((w * correlate(g, x, **options)).sum(), value)
    back = aggregate(g, transpose(w, **options), **options)
    torch.testing.assert_close((x * back).sum(), value)


def test_only_the_gradients_asked_for_are_computed():
    x, f, a, c = _inputs(1, 4, 4)
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


# --- the limits ---


@pytest.mark.parametrize("size", [3, 5, 7])
def test_a_zero_c_one_is_average_pooling(size):
    x, f, a, _ = _inputs(2, 9, 6)
    pooled = F.avg_pool2d(x, size, 1, size // 2, count_include_pad=False)
    result = smooth(x, f, torch.zeros_like(a), torch.ones_like(a), kernel_size=size)
    torch.testing.assert_close(result, pooled, atol=1e-5, rtol=1e-5)


def test_a_infinite_c_one_is_the_identity():
    x, f, a, _ = _inputs(2, 9, 6)
    far = torch.full_like(a, 1e30)
    result = smooth(x, f, far, torch.ones_like(a), kernel_size=5)
    torch.testing.assert_close(result, x, atol=1e-5, rtol=1e-5)


def test_a_infinite_c_zero_rejects_the_cell():
    x, f, a, _ = _inputs(2, 9, 6)
    inputs = [x, f, torch.full_like(a, 1e30), torch.zeros_like(a)]
    inputs = [t.requires_grad_() for t in inputs]
    y = smooth(*inputs, kernel_size=5, burstiness=0.5)
    assert y.abs().max() == 0
    y.sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in inputs)


def test_c_zero_replaces_a_cell_by_what_its_neighbours_agree_on():
    x, f, a, c = torch.ones(1, 2, 3, 3), torch.zeros(1, 1, 3, 3), *torch.ones(2, 1, 1, 3, 3)
    x[:, :, 1, 1], c[:, :, 1, 1] = 100.0, 0.0
    torch.testing.assert_close(smooth(x, f, a, c, kernel_size=3)[..., 1, 1], torch.ones(1, 2))


def _coordinates(height: int, width: int) -> Tensor:
    grid = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack(grid).double().unsqueeze(0)  # (1, 2, H, W)


def test_coordinates_as_features_give_a_gaussian():
    skimage = pytest.importorskip("skimage.filters")
    sigma, size = 1.5, 13
    x = torch.randn(1, 1, 40, 30, dtype=torch.float64)
    a, one = torch.full_like(x, 0.5 / sigma**2), torch.ones_like(x)
    result = smooth(x, _coordinates(40, 30), a, one, kernel_size=size)
    expected = skimage.gaussian(x[0, 0].numpy(), sigma, truncate=4.0)  # 13 cells a side
    middle = (slice(6, -6), slice(6, -6))  # the borders are treated differently there
    torch.testing.assert_close(result[0, 0][middle], torch.from_numpy(expected)[middle])


def test_coordinates_and_values_as_features_give_a_bilateral_filter():
    # scikit-image's window is one cell off for odd sizes, OpenCV's is a disc: hence plain loops
    space, colour, size, height, width = 1.2, 0.3, 5, 7, 6
    x = torch.rand(1, 1, height, width, dtype=torch.float64)
    one = torch.ones_like(x)
    f = torch.cat([_coordinates(height, width) / space, x / colour], dim=1)
    result = smooth(x, f, one / 2, one, kernel_size=size)[0, 0]
    value = x[0, 0].tolist()
    for i, j in itertools.product(range(height), range(width)):
        above = below = 0.0
        for _, v, u in _neighbours(i, j, height, width, size, 1):
            near = math.exp(-((i - v) ** 2 + (j - u) ** 2) / (2 * space**2))
            alike = math.exp(-((value[i][j] - value[v][u]) ** 2) / (2 * colour**2))
            above, below = above + near * alike * value[v][u], below + near * alike
        assert result[i, j].item() == pytest.approx(above / below, rel=1e-5)


def test_burstiness_lowers_repeated_features_and_leaves_unique_ones():
    x = torch.ones(1, 1, 5, 5)
    f = torch.zeros(1, 1, 5, 5)
    f[..., 0, 0] = 100.0
    y = smooth(x, f, x, x, kernel_size=3, burstiness=0.5)
    assert y[0, 0, 2, 2].item() == pytest.approx(9**-0.5, rel=1e-4)
    assert y[0, 0, 0, 0].item() == pytest.approx(1.0, rel=1e-4)


# --- precision and memory ---


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_stays_close(dtype):
    inputs = [t.to(dtype) for t in _inputs(2, 9, 6)]
    inputs = [t.requires_grad_() for t in inputs]
    y = smooth(*inputs, kernel_size=3)
    assert y.dtype == dtype
    expected = smooth(*(t.detach().double() for t in inputs), kernel_size=3)
    torch.testing.assert_close(y.double(), expected, atol=10 * torch.finfo(dtype).eps, rtol=0.02)
    y.sum().backward()
    assert all(t.grad.dtype == dtype and torch.isfinite(t.grad).all() for t in inputs)


@pytest.mark.parametrize("gate", [None, 0.1])
def test_the_layer_trains_under_autocast(gate):
    layer = LearnableSmoothing(8, kernel_size=3, residual=gate)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(torch.randn(2, 8, 5, 6))
    y.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


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
    inputs = [t.float().requires_grad_() for t in _inputs(1, 24, 24, channels=256, d=8)]
    with _Largest() as fast:
        smooth(*inputs, kernel_size=7).sum().backward()
    assert fast.numel <= inputs[0].numel()
    with _Largest() as slow:  # the meter does see such a tensor when there is one
        _unfold_smooth(*inputs, 7, 1)
    assert slow.numel >= 49 * inputs[0].numel()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_a_gpu(dtype):
    inputs = [t.to("cuda", dtype).requires_grad_() for t in _inputs(2, 17, 12)]
    y = smooth(*inputs, kernel_size=5)
    expected = smooth(*(t.detach().double().cpu() for t in inputs), kernel_size=5)
    torch.testing.assert_close(y.double().cpu(), expected, atol=5e-3, rtol=5e-3)
    y.sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in inputs)


# --- the layer ---


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_size": 5, "dilations": (1, 2), "residual": None},
        {"burstiness": 0.5, "feature_dim": 4, "hidden": 8},
        {"features": "after", "kernel_size": 5},
    ],
)
def test_the_layer_is_the_function_of_its_kernels(options):
    torch.manual_seed(0)
    layer = LearnableSmoothing(6, **options)
    x = torch.randn(2, 6, 7, 5)
    y = x
    for k in layer.kernels(x):
        size = {"kernel_size": k.kernel_size, "dilation": k.dilation}
        assert torch.equal(k.weights, smoothing_weights(k.f, k.a, k.c, **size))
        y = smooth(y, k.f, k.a, k.c, **size, burstiness=options.get("burstiness", 0.0))
    gate = options.get("residual", 0.1)
    expected = y if gate is None else x + gate * (y - x)
    assert [k.dilation for k in layer.kernels(x)] == list(options.get("dilations", (1,)))
    torch.testing.assert_close(layer(x), expected)
    assert torch.equal(layer.kernel(x).f, layer.kernels(x)[0].f)
    assert layer.kernel(x).f.shape[1] == options.get("feature_dim", 16)


def test_features_after_are_those_of_the_averaged_map():
    torch.manual_seed(0)
    before = LearnableSmoothing(6, kernel_size=5)
    after = LearnableSmoothing(6, kernel_size=5, features="after")
    after.load_state_dict(before.state_dict())
    x = torch.randn(2, 6, 7, 5)
    averaged = F.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
    torch.testing.assert_close(after.kernel(x).f, before.kernel(averaged).f)
    assert not torch.allclose(after.kernel(x).f, before.kernel(x).f)


def test_an_untrained_layer_stays_near_the_input_and_every_parameter_can_learn():
    torch.manual_seed(0)
    layer = LearnableSmoothing(32)
    x = torch.rand(2, 32, 8, 8)
    y = layer(x)
    assert (y - x).norm() < 0.1 * x.norm()
    torch.testing.assert_close(layer.kernel(x).a.mean().item(), 1.0, atol=0.2, rtol=0)
    torch.testing.assert_close(layer.kernel(x).c.mean().item(), 0.5, atol=0.1, rtol=0)
    y.square().sum().backward()
    assert all(p.grad.norm() > 0 for p in layer.parameters())


def test_gradcheck_of_the_layer():
    torch.manual_seed(0)
    layer = LearnableSmoothing(3, feature_dim=2, hidden=4, dilations=(1, 2)).double()
    x = torch.randn(1, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)


# --- bad input ---


def _broken(**changes: Tensor) -> list[Tensor]:
    inputs = dict(zip("xfac", _inputs(2, 4, 5), strict=True))
    return list((inputs | changes).values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x": torch.zeros(4, 4, 5)},
            "expected x as floats (B, channels, H, W), got torch.float32",
        ),
        ({"x": torch.zeros(2, 4, 4, 5).long()}, "expected x as floats (B, channels, H, W), got"),
        ({"x": torch.zeros(2, 4, 0, 5)}, "(2, 4, 0, 5)"),
        ({"x": torch.full((2, 4, 4, 5), torch.nan)}, "expected finite values in x, got NaN"),
        ({"x": torch.zeros(2, 4, 4, 6)}, "x (2, 4, 4, 6), got f (2, 3, 4, 5)"),
        ({"f": torch.zeros(2, 4, 5)}, "got f (2, 4, 5)"),
        ({"f": torch.full((2, 3, 4, 5), torch.nan)}, "expected finite values in f, got NaN"),
        ({"a": torch.zeros(2, 2, 4, 5)}, "expected a (B, 1, H, W) = (2, 1, 4, 5) beside f"),
        ({"a": torch.full((2, 1, 4, 5), torch.inf)}, "expected finite values in a, got NaN or inf"),
        (
            {"a": torch.full((2, 1, 4, 5), -1.0)},
            "expected a >= 0 (a softplus gives that), got -1.0",
        ),
        ({"c": torch.zeros(1, 1, 4, 5)}, "expected c (B, 1, H, W) = (2, 1, 4, 5) beside f"),
        ({"c": torch.full((2, 1, 4, 5), torch.nan)}, "expected finite values in c, got NaN"),
        (
            {"c": torch.full((2, 1, 4, 5), 2.0)},
            "expected c in [0, 1] (a sigmoid gives that), got 2",
        ),
        (
            {"c": torch.full((2, 1, 4, 5), -2.0)},
            "expected c in [0, 1] (a sigmoid gives that), got -",
        ),
    ],
)
def test_refuses_bad_input(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        smooth(*_broken(**changes), kernel_size=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 4}, "expected an odd kernel_size >= 1, got 4"),
        ({"kernel_size": -1}, "expected an odd kernel_size >= 1, got -1"),
        ({"kernel_size": 3, "dilation": 0}, "expected dilation >= 1, got 0"),
        ({"kernel_size": 3, "burstiness": -1.0}, "expected burstiness >= 0 and eps > 0, got -1.0"),
        ({"kernel_size": 3, "eps": 0.0}, "expected burstiness >= 0 and eps > 0, got 0.0 and 0.0"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        smooth(*_inputs(1, 3, 3), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 2}, "expected an odd kernel_size"),
        ({"dilations": (0,)}, "expected dilation >= 1"),
        ({"dilations": ()}, "at least one dilation"),
        ({"hidden": 0}, "expected channels, feature_dim, hidden >= 1"),
        ({"features": "during"}, 'expected features "before" or "after", got \'during\''),
    ],
)
def test_the_layer_refuses_bad_options(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LearnableSmoothing(4, **options)


def test_the_layer_refuses_a_map_without_batch():
    with pytest.raises(ValueError, match=r"expected x as floats \(B, channels, H, W\)"):
        LearnableSmoothing(4)(torch.zeros(4, 3, 3))
