import pytest
import torch

from spatial_retrieval.layers.controls import ConvolutionControl


@pytest.mark.parametrize("shape", [(1, 6, 1, 1), (2, 6, 5, 3)])
def test_keeps_the_shape(shape):
    x = torch.rand(shape)
    assert ConvolutionControl(6, width=4)(x).shape == x.shape


def test_zero_read_out_is_the_input():
    x = torch.rand(2, 6, 5, 4)
    assert torch.equal(ConvolutionControl(6, width=4, start=0)(x), x)


def test_a_cell_hears_two_steps_and_no_further():
    layer = ConvolutionControl(3, width=4, start=1.0)
    x = torch.rand(1, 3, 9, 9, requires_grad=True)
    layer.convolutions[1] = layer.convolutions[4] = torch.nn.Identity()  # norms see everything
    layer(x)[0, :, 4, 4].sum().backward()
    heard = x.grad[0].abs().sum(dim=0) > 0
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[2:7, 2:7] = True
    assert torch.equal(heard, expected)


def test_mirrored_map_needs_mirrored_kernels():
    layer = ConvolutionControl(3, width=4, start=1.0)
    x = torch.rand(1, 3, 6, 5)
    y = layer(x)
    assert not torch.allclose(layer(x.flip(-1)), y.flip(-1), atol=1e-4)
    for convolution in (layer.convolutions[0], layer.convolutions[3]):
        convolution.weight.data = convolution.weight.data.flip(-1)
    torch.testing.assert_close(layer(x.flip(-1)), y.flip(-1))


def test_gradcheck():
    layer = ConvolutionControl(2, width=2, start=0.5).double()
    x = torch.rand(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ConvolutionControl(3, width=0), "width ≥ 1"),
        (lambda: ConvolutionControl(3)(torch.rand(3, 4, 4)), "C = 3"),
        (lambda: ConvolutionControl(3)(torch.rand(1, 4, 4, 4)), "got"),
    ],
)
def test_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
