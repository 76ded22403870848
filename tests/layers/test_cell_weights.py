import numpy as np
import pytest
import torch

from spatial_retrieval.layers.cell_weights import Rarity, rarity

SHAPES = [(1, 1, 1, 1), (1, 3, 1, 5), (3, 4, 4, 7)]


def draw(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loops(x, kernel_size, bandwidth, burstiness):
    out = np.zeros((len(x), 1, *x.shape[2:]))
    cells = [(r, c) for r in range(x.shape[2]) for c in range(x.shape[3])]
    for b in range(len(x)):
        mean = x[b].mean(axis=(1, 2))
        f = {p: x[b, :, p[0], p[1]] - mean for p in cells}
        f = {p: v / max(np.linalg.norm(v), 1e-12) for p, v in f.items()}
        for p in cells:
            near = [q for q in cells if max(abs(q[0] - p[0]), abs(q[1] - p[1])) <= kernel_size // 2]
            s = np.mean([np.exp(-bandwidth * ((f[p] - f[q]) ** 2).sum()) for q in near])
            out[b, 0, p[0], p[1]] = s**-burstiness
        out[b] /= out[b].mean()
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("numbers", [(7, 5.0, 1.0), (3, 2.0, 0.5)])
def test_equals_plain_loops(shape, numbers):
    x = draw(shape)
    kernel_size, bandwidth, burstiness = numbers
    found = rarity(x, kernel_size=kernel_size, bandwidth=bandwidth, burstiness=burstiness)
    np.testing.assert_allclose(found.numpy(), loops(x.numpy(), *numbers), rtol=1e-9)


def test_all_cells_count_alike_on_an_even_map_without_burstiness_and_without_a_bandwidth():
    one = torch.ones(1, 1, 4, 5)
    torch.testing.assert_close(rarity(one.expand(1, 3, 4, 5)), one)
    x = draw((1, 3, 4, 5)).float()
    torch.testing.assert_close(rarity(x, burstiness=0), one)
    torch.testing.assert_close(rarity(x, bandwidth=0), one)


def test_a_cell_unlike_its_neighbours_counts_most():
    x = torch.ones(1, 2, 5, 5)
    x[0, :, 2, 2] = torch.tensor([9.0, 0.0])
    w = rarity(x, kernel_size=3)[0, 0]
    assert w.argmax() == 12 and w[2, 2] > 1.5 * w[0, 0]


def test_passes_gradcheck():
    assert torch.autograd.gradcheck(
        lambda x: rarity(x, kernel_size=3), draw((2, 3, 3, 2)).requires_grad_()
    )


def test_module_equals_function():
    x = draw((2, 3, 5, 4)).float()
    torch.testing.assert_close(Rarity(kernel_size=5)(x), rarity(x, kernel_size=5))
    torch.testing.assert_close(Rarity()(x), rarity(x, kernel_size=7, bandwidth=5, burstiness=1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rarity(torch.rand(3, 4)), r"\(B, C, H, W\) with cells, got \(3, 4\)"),
        (lambda: rarity(torch.rand(1, 1, 2, 2), kernel_size=4), "odd"),
        (lambda: Rarity(bandwidth=-1), "bandwidth >= 0"),
        (lambda: Rarity(burstiness=-0.5), "burstiness >= 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_confidence_starts_at_rarity_and_weighs_cells_when_learned():
    from spatial_retrieval.layers.cell_weights import TrustedRarity

    x = torch.rand(2, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    layer = TrustedRarity(6, kernel_size=3)
    torch.testing.assert_close(layer(x), rarity(x, kernel_size=3))
    with torch.no_grad():
        layer.confidence[3].bias.fill_(1.0)
    expected = rarity(x, kernel_size=3) * 2 * torch.tensor(1.0).sigmoid()
    torch.testing.assert_close(layer(x), expected)
    layer(x).sum().backward()
    assert float(layer.confidence[3].weight.grad.abs().sum()) > 0
