import numpy as np
import pytest
import torch

from spatial_retrieval.layers.cell_weights import Rarity
from spatial_retrieval.layers.second_order import SecondOrderPooling, matrix_root, second_order

SHAPES = [(1, 1, 1, 1), (1, 3, 1, 5), (3, 4, 2, 7)]


def draw(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loops(x, weights=None):
    """The root by eigenvalues, its upper triangle entry by entry."""
    rows = []
    for b in range(len(x)):
        moment = np.zeros((x.shape[1], x.shape[1]))
        for r in range(x.shape[2]):
            for c in range(x.shape[3]):
                z = x[b, :, r, c].numpy() * (1 if weights is None else float(weights[b, 0, r, c]))
                moment += np.outer(z, z) / (x.shape[2] * x.shape[3])
        values, vectors = np.linalg.eigh(moment)
        root = vectors @ np.diag(np.sqrt(values.clip(min=0))) @ vectors.T
        y = np.array([root[i, j] for i in range(len(root)) for j in range(i, len(root))])
        rows.append(y / np.linalg.norm(y))
    return np.stack(rows)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_plain_loops_with_eigenvalues(shape, weighted):
    x = draw(shape)
    weights = draw((shape[0], 1, *shape[2:]), seed=1) if weighted else None
    found = second_order(x, weights, steps=40).numpy()
    np.testing.assert_allclose(found, loops(x, weights), atol=1e-5)


def test_the_root_squared_is_the_matrix():
    a = draw((2, 5, 9)) - 0.5
    g = a @ a.mT
    root = matrix_root(g, steps=25)
    torch.testing.assert_close(root @ root, g)
    torch.testing.assert_close(matrix_root(torch.zeros(1, 3, 3)), torch.zeros(1, 3, 3))


def test_more_steps_come_nearer_to_the_eigenvalues():
    a = draw((1, 6, 30)) - 0.5
    g = a @ torch.diag(torch.linspace(1, 0.2, 30).double()) @ a.mT
    values, vectors = torch.linalg.eigh(g)
    exact = vectors @ torch.diag_embed(values.sqrt()) @ vectors.mT
    few, many = ((matrix_root(g, steps=n) - exact).norm() for n in (2, 12))
    assert many < 1e-6 < few


def test_of_one_feature_alone_it_is_that_feature_times_itself():
    x = torch.zeros(1, 3, 2, 2)
    x[0, 1] = 5.0
    torch.testing.assert_close(second_order(x), torch.eye(6)[3:4], rtol=0, atol=1e-3)


def test_order_and_scale_of_the_cells_do_not_matter():
    x = draw((1, 4, 3, 3))
    shuffled = 7 * x.flatten(2)[..., torch.randperm(9)].unflatten(2, (3, 3))
    torch.testing.assert_close(second_order(x), second_order(shuffled))


def test_a_projection_is_applied_to_the_cells():
    x, p = draw((2, 5, 3, 2)), draw((2, 5), seed=3)
    projected = torch.einsum("pc,bchw->bphw", p, x)
    torch.testing.assert_close(second_order(x, projection=p), second_order(projected))


def test_passes_gradcheck():
    x, w = draw((2, 3, 2, 2)).requires_grad_(), draw((2, 1, 2, 2), seed=1).requires_grad_()
    assert torch.autograd.gradcheck(second_order, (x, w))


def test_half_precision_is_pooled_in_single():
    x = draw((1, 3, 4, 4))
    found = second_order(x.half())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, second_order(x).float(), rtol=0, atol=1e-3)


def test_module_equals_function():
    x = draw((2, 6, 3, 4)).float()
    plain, weighed = SecondOrderPooling(6), SecondOrderPooling(6, weigh=Rarity(), project=3)
    torch.testing.assert_close(plain(x), second_order(x))
    expected = second_order(x, Rarity()(x), projection=weighed.projection)
    torch.testing.assert_close(weighed(x), expected)
    assert plain(x).shape == (2, plain.out_features) and weighed(x).shape == (
        2,
        weighed.out_features,
    )
    assert set(weighed.state_dict()) == {"projection"} and not plain.state_dict()
    axes = weighed.projection
    torch.testing.assert_close(axes @ axes.T, torch.eye(3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: second_order(torch.rand(3, 4)), r"\(B, C, H, W\) with cells, got \(3, 4\)"),
        (lambda: second_order(torch.rand(1, 3, 0, 2)), "with cells"),
        (
            lambda: second_order(torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 2)),
            r"weights \(1, 1, 2, 2\), got \(1, 3, 2, 2\)",
        ),
        (
            lambda: second_order(torch.rand(1, 3, 2, 2), projection=torch.rand(2, 4)),
            r"projection \(P, 3\), got \(2, 4\)",
        ),
        (lambda: matrix_root(torch.rand(1, 2, 3)), r"\(B, C, C\)"),
        (lambda: matrix_root(torch.rand(1, 2, 2), steps=0), "steps >= 1"),
        (lambda: SecondOrderPooling(4, project=5), "project <= channels = 4"),
        (lambda: SecondOrderPooling(4)(torch.rand(1, 3, 2, 2)), "C = 4"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
