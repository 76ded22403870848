import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spatial_retrieval.layers.pooling import (
    GeM,
    RegionalGeM,
    gem,
    mac,
    regional_gem,
    spoc,
    windows,
)

SHAPES = [(1, 1, 1, 1), (1, 3, 1, 5), (3, 4, 2, 7)]


def loops(x, p, eps=1e-6):
    out = np.zeros(x.shape[:2])
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            cells = [max(float(v), eps) ** p for v in x[b, c].flatten()]
            out[b, c] = (sum(cells) / len(cells)) ** (1 / p)
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("p", [1.0, 3.0, 4.6])
def test_gem_equals_plain_loops(shape, p):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.2
    np.testing.assert_allclose(gem(x, p).numpy(), loops(x, p), rtol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_limits_are_spoc_and_mac(shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1)) + 0.1
    torch.testing.assert_close(gem(x, 1.0), spoc(x))
    torch.testing.assert_close(gem(x, 1000.0), mac(x), rtol=5e-3, atol=0)


def test_gem_matches_the_published_code(shared):
    values = np.load(shared / "golden" / "parity.npz")
    for p in (1.0, 3.0, 4.6):
        found = gem(torch.from_numpy(values["gem_x"]), p).numpy()
        np.testing.assert_allclose(found, values[f"gem_p{p}"], atol=1e-5)


def test_gem_passes_gradcheck_in_x_and_p():
    x = torch.rand(2, 3, 2, 4, dtype=torch.float64) + 0.1
    p = torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(gem, (x.requires_grad_(), p.requires_grad_()))


def test_one_p_for_each_channel():
    x = torch.rand(2, 2, 3, 3, generator=torch.Generator().manual_seed(2))
    both = gem(x, torch.tensor([1.0, 5.0]))
    torch.testing.assert_close(both[:, :1], gem(x[:, :1], 1.0))
    torch.testing.assert_close(both[:, 1:], gem(x[:, 1:], 5.0))


@given(st.floats(0.1, 1e3), st.floats(0.5, 50))
def test_gem_scales_with_its_input_and_stays_finite(factor, p):
    x = torch.rand(1, 2, 3, 3, generator=torch.Generator().manual_seed(3)).double() + 0.1
    torch.testing.assert_close(gem(factor * x, p), factor * gem(x, p))


def test_a_large_p_neither_overflows_nor_dies():
    x = torch.full((1, 1, 2, 2), 300.0, requires_grad=True)
    y = gem(x, 60.0)
    y.sum().backward()
    assert y.item() == pytest.approx(300) and torch.isfinite(x.grad).all()
    assert gem(torch.zeros(1, 1, 2, 2), 3.0).item() == pytest.approx(1e-6)


def test_cells_may_be_permuted():
    x = torch.rand(2, 5, 4, 6, generator=torch.Generator().manual_seed(4))
    order = torch.randperm(24, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(gem(x), gem(x.flatten(2)[..., order].reshape(x.shape)))


def test_the_module_is_the_function_and_can_learn():
    x = torch.rand(2, 4, 3, 3, generator=torch.Generator().manual_seed(6))
    torch.testing.assert_close(GeM(2.5)(x), gem(x, 2.5))
    assert not GeM(3.0).p.requires_grad
    layer = GeM(3.0, learnable=True, channels=4)
    layer(x).sum().backward()
    assert layer.p.grad.shape == (4,) and (layer.p.grad != 0).all()


def test_a_learned_p_that_falls_too_low_is_held():
    layer, x = GeM(3.0, learnable=True), torch.rand(2, 4, 3, 5)
    with torch.no_grad():
        layer.p.fill_(-2.0)
    torch.testing.assert_close(layer(x), gem(x, 0.1))


@pytest.mark.parametrize(
    ("x", "p", "message"),
    [
        (torch.rand(3, 4, 5), 3.0, r"expected a feature map \(B, C, H, W\)"),
        (torch.rand(1, 3, 0, 5), 3.0, "with cells"),
        (torch.rand(1, 3, 2, 2), 0.0, "expected p > 0"),
        (torch.rand(1, 3, 2, 2), torch.ones(2), "C = 3"),
    ],
)
def test_bad_input_says_what_was_expected(x, p, message):
    with pytest.raises(ValueError, match=message):
        gem(x, p)
    with pytest.raises(ValueError, match="expected p > 0"):
        GeM(-1.0)


@pytest.mark.parametrize("pool", [spoc, mac])
def test_the_limits_refuse_bad_maps_too(pool):
    with pytest.raises(ValueError, match="expected a feature map"):
        pool(torch.rand(3, 4))


def regional_loops(x, p, levels):
    """Window by window, as the sketch of the method had it."""
    unit = lambda y: y / np.linalg.norm(y, axis=1, keepdims=True)  # noqa: E731
    _, _, h, w = x.shape
    total = unit(loops(x, p))
    for n in range(2, levels + 1):
        a, b = max(1, 2 * h // (n + 1)), max(1, 2 * w // (n + 1))
        for top in np.linspace(0, h - a, n).astype(int):
            for left in np.linspace(0, w - b, n).astype(int):
                total = total + unit(loops(x[..., top : top + a, left : left + b], p)) / n**2
    return unit(total)


@pytest.mark.parametrize("shape", [*SHAPES, (2, 3, 6, 11)])
@pytest.mark.parametrize("levels", [1, 3])
def test_regional_gem_equals_plain_loops(shape, levels):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = regional_gem(x, 3.0, levels=levels).numpy()
    np.testing.assert_allclose(found, regional_loops(x, 3.0, levels), rtol=1e-9)


def test_regional_gem_of_one_level_is_gem_and_of_an_even_map_too():
    x = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(4))
    whole = torch.nn.functional.normalize(gem(x), dim=1)
    torch.testing.assert_close(regional_gem(x, levels=1), whole)
    even = x[..., :1, :1].expand(2, 3, 4, 5)
    torch.testing.assert_close(regional_gem(even), torch.nn.functional.normalize(gem(even), dim=1))


def test_windows_overlap_and_reach_every_side():
    for height, width, n in [(1, 1, 2), (7, 4, 2), (9, 15, 3)]:
        found = windows(height, width, n)
        assert len(found) == n * n
        assert found[0][:2] == (0, 0) and found[-1][2:] == (height, width)


def test_regional_gem_passes_gradcheck_and_its_module_equals_it():
    x = torch.rand(1, 2, 4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    p = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(regional_gem, (x.clone().requires_grad_(), p))
    torch.testing.assert_close(RegionalGeM(3.0)(x.float()), regional_gem(x.float()))
    learned = RegionalGeM(2.0, levels=2, learnable=True)
    torch.testing.assert_close(learned(x.float()), regional_gem(x.float(), 2.0, levels=2))
    assert learned.p.requires_grad


def test_regional_gem_names_bad_input():
    with pytest.raises(ValueError, match="levels >= 1, got 0"):
        regional_gem(torch.rand(1, 1, 2, 2), levels=0)
    with pytest.raises(ValueError, match="p > 0 and levels >= 1, got 0"):
        RegionalGeM(0)
