import numpy as np
import pytest
import torch

from spatial_retrieval.layers.whitening import learn_whitening, pca_whitening


def sample(n=200, d=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix + 1.5


def pairs(n=60):
    return torch.arange(0, n), torch.arange(n, 2 * n)


def test_both_whitenings_match_the_published_code(shared):
    values = np.load(shared / "golden" / "parity.npz")
    x = torch.from_numpy(values["whiten_x"])
    learned = learn_whitening(
        x,
        torch.from_numpy(values["whiten_query_ids"]),
        torch.from_numpy(values["whiten_positive_ids"]),
    )
    for dim, name in [(None, "whiten_learned_gram"), (8, "whiten_learned_8_gram")]:
        y = learned.apply(x, dim)
        np.testing.assert_allclose((y @ y.T).numpy(), values[name], atol=1e-5)
    y = pca_whitening(x).apply(x)
    np.testing.assert_allclose((y @ y.T).numpy(), values["whiten_pca_gram"], atol=1e-5)


def test_learned_whitening_equals_plain_numpy():
    x, (q, p) = sample(), pairs()
    found = learn_whitening(x, q, p)
    a = x.numpy()
    difference = a[q] - a[p]
    lower = np.linalg.cholesky(difference.T @ difference / len(q))
    shaped = np.linalg.inv(lower) @ (a - a[q].mean(axis=0)).T
    values, vectors = np.linalg.eigh(shaped @ shaped.T)
    expected = vectors[:, np.argsort(-values)].T @ np.linalg.inv(lower)
    np.testing.assert_allclose(np.abs(found.projection.numpy()), np.abs(expected), rtol=1e-6)
    np.testing.assert_allclose(found.mean.numpy(), a[q].mean(axis=0))


def test_differences_within_a_pair_become_white():
    x, (q, p) = sample(), pairs()
    projection = learn_whitening(x, q, p).projection
    difference = (x[q] - x[p]) @ projection.T
    torch.testing.assert_close(difference.T @ difference / len(q), torch.eye(6).double())


def test_pca_makes_the_covariance_white_and_power_zero_only_rotates():
    x = sample()
    for power, expected in [(0.5, torch.eye(6).double()), (0.0, None)]:
        whitening = pca_whitening(x, power=power)
        y = (x - whitening.mean) @ whitening.projection.T
        covariance = y.T @ y / len(y)
        if expected is None:
            expected = torch.diag(covariance.diagonal())
            assert (covariance.diagonal().diff() <= 0).all()
            torch.testing.assert_close(y.norm(dim=1), (x - whitening.mean).norm(dim=1))
        torch.testing.assert_close(covariance, expected, atol=1e-8, rtol=0)


def test_directions_without_data_stay_finite():
    x = torch.cat([sample(d=3), torch.zeros(200, 2)], dim=1)
    assert torch.isfinite(pca_whitening(x).apply(x)).all()


def test_the_result_has_unit_rows_and_is_cut():
    x = sample()
    y = pca_whitening(x).apply(x, dim=4)
    assert y.shape == (200, 4)
    torch.testing.assert_close(y.norm(dim=1), torch.ones(200).double())


def test_the_linear_layer_is_the_same_map():
    x = sample().float()
    whitening = pca_whitening(x)
    y = torch.nn.functional.normalize(whitening.linear(5)(x), dim=1)
    torch.testing.assert_close(y, whitening.apply(x, 5), atol=1e-5, rtol=1e-4)


def test_bad_input_says_what_was_expected():
    x = sample()
    with pytest.raises(ValueError, match=r"expected descriptors \(N, D\) with N ≥ 2"):
        pca_whitening(x[:1])
    with pytest.raises(ValueError, match="as many positives as queries"):
        learn_whitening(x, torch.arange(3), torch.arange(2))
    with pytest.raises(ValueError, match="span all 6 dimensions, got 2 pairs"):
        learn_whitening(x, torch.arange(2), torch.arange(2, 4))
    with pytest.raises(ValueError, match="rows of 6 numbers"):
        pca_whitening(x).apply(x[:, :3])
    with pytest.raises(ValueError, match="dim in 1 … 6, got 7"):
        pca_whitening(x).apply(x, dim=7)
