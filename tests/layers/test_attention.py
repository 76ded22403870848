import math

import numpy as np
import pytest
import torch

from spatial_retrieval.layers.attention import SecondOrderAttention, attention_weights


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 1, 1), (1, 2, 5), (3, 3, 2)])
def test_weights_equal_plain_loops(batch, height, width):
    torch.manual_seed(0)
    f, g = torch.randn(2, batch, 4, height, width)
    attention = attention_weights(f, g)
    n = height * width
    for b in range(batch):
        for i in range(n):
            scores = [
                sum(float(f[b].flatten(1)[m, i] * g[b].flatten(1)[m, j]) for m in range(4)) / 2
                for j in range(n)
            ]
            powers = [math.exp(s) for s in scores]
            expected = [p / sum(powers) for p in powers]
            assert attention[b, i].tolist() == pytest.approx(expected, rel=1e-4)


def test_the_untrained_block_is_the_identity():
    x = torch.randn(2, 8, 3, 4)
    assert torch.equal(SecondOrderAttention(8, reduction=2)(x), x)


def test_attending_to_nothing_in_particular_adds_the_mean():
    block = SecondOrderAttention(6, reduction=1).eval()
    with torch.no_grad():
        for convolution in (block.f[0], block.h, block.v):
            convolution.bias.zero_()
        block.f[0].weight.zero_()
        block.h.weight.copy_(torch.eye(6)[:, :, None, None])
        block.v.weight.copy_(torch.eye(6)[:, :, None, None])
    x = torch.randn(2, 6, 3, 5)
    torch.testing.assert_close(block(x), x + x.mean(dim=(-2, -1), keepdim=True))


def test_gradient():
    torch.manual_seed(0)
    block = SecondOrderAttention(4, reduction=2).double().eval()
    torch.nn.init.normal_(block.v.weight)
    x = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, x)


def test_equals_the_published_block(shared):
    golden = np.load(shared / "golden" / "parity.npz")
    state = {
        k.removeprefix("soa."): torch.from_numpy(golden[k]) for k in golden if k.startswith("soa.")
    }
    block = SecondOrderAttention(32, reduction=2).eval()
    block.load_state_dict(state)
    x = torch.from_numpy(golden["soa_x"])
    with torch.no_grad():
        torch.testing.assert_close(block(x), torch.from_numpy(golden["soa_y"]))
        torch.testing.assert_close(block.attention(x), torch.from_numpy(golden["soa_attn"]))


def test_refuses_bad_input():
    with pytest.raises(ValueError, match=r"expected 1 <= reduction <= channels = 4, got .* 8"):
        SecondOrderAttention(4, reduction=8)
    with pytest.raises(ValueError, match="expected 1 <= reduction"):
        SecondOrderAttention(4, reduction=0)
    with pytest.raises(ValueError, match=r"expected x \(B, C = 4, H, W\), got \(1, 3, 2, 2\)"):
        SecondOrderAttention(4)(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match="expected f and g of one shape"):
        attention_weights(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 1))
