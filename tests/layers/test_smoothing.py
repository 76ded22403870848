import itertools
import math
import re

import pytest
import torch
import torch.nn.functional as F
from smoothing_oracle import (
    GRIDS,
    neighbours,
    random_inputs,
    slow_smooth,
    slow_weights,
    unfold_smooth,
)
from torch import Tensor

from spatial_retrieval.layers.smoothing import (
    SmoothingKernel,
    smooth,
    smooth_by,
    smoothing_weights,
)


@pytest.mark.parametrize(("batch", "height", "width", "size", "dilation"), GRIDS)
def test_weights_and_result_equal_plain_loops(batch, height, width, size, dilation):
    x, f, a, c = random_inputs(batch, height, width)
    options = {"kernel_size": size, "dilation": dilation}
    w = slow_weights(f, a, c, size, dilation)
    torch.testing.assert_close(smoothing_weights(f, a, c, **options), w)
    torch.testing.assert_close(smooth(x, f, a, c, **options), slow_smooth(x, w, size, dilation))
    torch.testing.assert_close(
        smooth_by(x, SmoothingKernel(f, a, c, **options), burstiness=0.5, eps=0.1),
        slow_smooth(x, w, size, dilation, eps=0.1, beta=0.5),
    )


@pytest.mark.parametrize(("batch", "height", "width", "size", "dilation"), GRIDS)
def test_gradients_equal_those_of_the_plain_operations(batch, height, width, size, dilation):
    fast = [t.requires_grad_() for t in random_inputs(batch, height, width)]
    slow = [t.detach().clone().requires_grad_() for t in fast]
    pull = torch.randn_like(fast[0])
    smooth(*fast, kernel_size=size, dilation=dilation).backward(pull)
    unfold_smooth(*slow, size, dilation).backward(pull)
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
    inputs = random_inputs(2, 9, 11)
    moved = [layout(t) for t in inputs]
    assert not moved[0].is_contiguous()
    before = [t.clone() for t in moved]
    expected = smooth(*inputs, kernel_size=5)
    torch.testing.assert_close(smooth(*moved, kernel_size=5), expected)
    unchanged = [torch.equal(*pair) for pair in zip(moved, before, strict=True)]
    assert all(unchanged)


@pytest.mark.parametrize(("height", "width", "dilation"), [(1, 1, 1), (3, 2, 1), (2, 5, 2)])
def test_gradcheck(height, width, dilation):
    gate = torch.tensor(0.7, dtype=torch.float64)
    inputs = [*random_inputs(2, height, width, channels=2, d=2), gate]
    inputs = [t.requires_grad_() for t in inputs]

    def function(*args: Tensor) -> Tensor:
        kernel = SmoothingKernel(*args[1:4], 3, dilation)
        return smooth_by(args[0], kernel, residual=args[4], burstiness=0.3, eps=1e-3)

    assert torch.autograd.gradcheck(function, inputs)


def test_second_derivatives():
    inputs = [t.requires_grad_() for t in random_inputs(1, 2, 3, channels=2, d=2)]
    assert torch.autograd.gradgradcheck(lambda *args: smooth(*args, kernel_size=3), inputs)


# --- the limits ---


@pytest.mark.parametrize("size", [3, 5, 7])
def test_a_zero_c_one_is_average_pooling(size):
    x, f, a, _ = random_inputs(2, 9, 6)
    pooled = F.avg_pool2d(x, size, 1, size // 2, count_include_pad=False)
    result = smooth(x, f, torch.zeros_like(a), torch.ones_like(a), kernel_size=size)
    torch.testing.assert_close(result, pooled, atol=1e-5, rtol=1e-5)


def test_a_infinite_c_one_is_the_identity():
    x, f, a, _ = random_inputs(2, 9, 6)
    far = torch.full_like(a, 1e30)
    result = smooth(x, f, far, torch.ones_like(a), kernel_size=5)
    torch.testing.assert_close(result, x, atol=1e-5, rtol=1e-5)


def test_a_infinite_c_zero_rejects_the_cell():
    x, f, a, _ = random_inputs(2, 9, 6)
    inputs = [x, f, torch.full_like(a, 1e30), torch.zeros_like(a)]
    inputs = [t.requires_grad_() for t in inputs]
    y = smooth_by(inputs[0], SmoothingKernel(*inputs[1:], 5), burstiness=0.5)
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
        for _, v, u in neighbours(i, j, height, width, size, 1):
            near = math.exp(-((i - v) ** 2 + (j - u) ** 2) / (2 * space**2))
            alike = math.exp(-((value[i][j] - value[v][u]) ** 2) / (2 * colour**2))
            above, below = above + near * alike * value[v][u], below + near * alike
        assert result[i, j].item() == pytest.approx(above / below, rel=1e-5)


def test_burstiness_lowers_repeated_features_and_leaves_unique_ones():
    x = torch.ones(1, 1, 5, 5)
    f = torch.zeros(1, 1, 5, 5)
    f[..., 0, 0] = 100.0
    y = smooth_by(x, SmoothingKernel(f, x, x, 3), burstiness=0.5)
    assert y[0, 0, 2, 2].item() == pytest.approx(9**-0.5, rel=1e-4)
    assert y[0, 0, 0, 0].item() == pytest.approx(1.0, rel=1e-4)


# --- bad input ---


def _broken(**changes: Tensor) -> list[Tensor]:
    inputs = dict(zip("xfac", random_inputs(2, 4, 5), strict=True))
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
        ({"a": torch.zeros(2, 2, 4, 5)}, "expected a (B, 1, H, W) = (2, 1, 4, 5) next to f"),
        ({"a": torch.full((2, 1, 4, 5), torch.inf)}, "expected finite values in a, got NaN or inf"),
        (
            {"a": torch.full((2, 1, 4, 5), -1.0)},
            "expected a >= 0 (a softplus gives that), got -1.0",
        ),
        ({"c": torch.zeros(1, 1, 4, 5)}, "expected c (B, 1, H, W) = (2, 1, 4, 5) next to f"),
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
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        smooth(*random_inputs(1, 3, 3), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"burstiness": -1.0}, "expected burstiness >= 0 and eps > 0, got -1.0"),
        ({"eps": 0.0}, "expected burstiness >= 0 and eps > 0, got 0.0 and 0.0"),
    ],
)
def test_refuses_bad_blending(options, message):
    x, f, a, c = random_inputs(1, 3, 3)
    with pytest.raises(ValueError, match=re.escape(message)):
        smooth_by(x, SmoothingKernel(f, a, c, 3), **options)
