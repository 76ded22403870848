import re

import pytest
import torch

from spatial_retrieval.layers.smoothing import LearnableSmoothing, smooth, smoothing_weights


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_size": 5, "dilations": (1, 2), "residual": None},
        {"dilations": (1, 3), "residual": 0.6},
        {"feature_dim": 4, "hidden": 8},
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
        smoothed = smooth(y, k.f, k.a, k.c, **size)
        gate = options.get("residual", 0.1)
        y = smoothed if gate is None else y + gate * (smoothed - y)
    assert [k.dilation for k in layer.kernels(x)] == list(options.get("dilations", (1,)))
    torch.testing.assert_close(layer(x), y)
    assert torch.equal(layer.kernel(x).f, layer.kernels(x)[0].f)
    assert layer.kernel(x).f.shape[1] == options.get("feature_dim", 16)


def test_each_stage_has_a_gate_of_its_own():
    torch.manual_seed(0)
    layer = LearnableSmoothing(6, dilations=(1, 2))
    with torch.no_grad():
        layer.residual.copy_(torch.tensor([0.0, 1.0]))
    x = torch.randn(2, 6, 7, 5)
    second = layer.kernels(x)[1]
    expected = smooth(x, second.f, second.a, second.c, kernel_size=3, dilation=2)
    torch.testing.assert_close(layer(x), expected)


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


@pytest.mark.parametrize("gate", [None, 0.1])
def test_the_layer_trains_under_autocast(gate):
    layer = LearnableSmoothing(8, kernel_size=3, residual=gate)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(torch.randn(2, 8, 5, 6))
    y.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 2}, "expected an odd kernel_size"),
        ({"dilations": (0,)}, "expected dilation >= 1"),
        ({"dilations": ()}, "at least one dilation"),
        ({"hidden": 0}, "expected channels, feature_dim, hidden >= 1"),
    ],
)
def test_the_layer_refuses_bad_options(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LearnableSmoothing(4, **options)


def test_the_layer_refuses_a_map_without_batch():
    with pytest.raises(ValueError, match=r"expected x as floats \(B, channels, H, W\)"):
        LearnableSmoothing(4)(torch.zeros(4, 3, 3))


def test_fixed_bandwidth_and_confidence_are_the_ablations():
    from refinement_variants import FixedSmoothing

    torch.manual_seed(0)
    x = torch.randn(2, 6, 7, 5)
    learned = LearnableSmoothing(6)
    for name, number in (("bandwidth", 0.5), ("confidence", 0.25)):
        fixed = FixedSmoothing(6, **{name: number})
        fixed.load_state_dict(learned.state_dict())
        a, b = learned.kernel(x), fixed.kernel(x)
        kept, changed = ("c", "a") if name == "bandwidth" else ("a", "c")
        assert torch.equal(getattr(a, kept), getattr(b, kept)) and torch.equal(a.f, b.f)
        assert (getattr(b, changed) == number).all()
