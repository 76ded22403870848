import numpy as np
import pytest
import torch

from spatial_retrieval.layers.whitening import (
    choose_shrink,
    label_whitening,
    learn_whitening,
    pca_whitening,
)


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


def labelled(labels=12, each=5, d=6, seed=0):
    """Labels that differ in every direction; within them, views differ along the first most."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(labels, d, generator=generator, dtype=torch.float64)
    noise = torch.randn(labels, each, d, generator=generator, dtype=torch.float64)
    noise = noise * torch.tensor([3.0, *[0.3] * (d - 1)], dtype=torch.float64)
    return (centres[:, None] + noise).flatten(0, 1), torch.arange(labels).repeat_interleave(each)


def nearest_is_right(x, labels):
    similarity = (x @ x.T).fill_diagonal_(-2)
    return float((labels[similarity.argmax(dim=1)] == labels).double().mean())


@pytest.mark.parametrize("shrink", [0.0, 0.3, 1.0])
def test_label_whitening_equals_plain_numpy(shrink):
    x, labels = labelled()
    a, scatter = x.numpy(), np.zeros((6, 6))
    for label in range(12):
        rows = a[labels.numpy() == label]
        scatter += (rows - rows.mean(0)).T @ (rows - rows.mean(0)) / len(rows) / 12
    scatter = (1 - shrink) * scatter + shrink * np.trace(scatter) / 6 * np.eye(6)
    values, vectors = np.linalg.eigh(scatter)
    y = (a - a.mean(0)) @ (vectors / np.sqrt(values) @ vectors.T)
    values, vectors = np.linalg.eigh(y.T @ y / len(y))
    y = y @ vectors / values**0.1
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    found = label_whitening(x, labels, shrink=shrink, power=0.1).apply(x)
    np.testing.assert_allclose((found @ found.T).numpy(), y @ y.T, atol=1e-8)


def test_scatter_within_labels_becomes_white_without_shrinking():
    x, labels = labelled()
    whitening = label_whitening(x, labels, shrink=0.0, power=0.0)
    y = ((x - whitening.mean) @ whitening.projection.T).unflatten(0, (12, 5))
    y = (y - y.mean(dim=1, keepdim=True)).flatten(0, 1)
    torch.testing.assert_close(y.T @ y / len(y), torch.eye(6).double())


def test_each_label_counts_alike_and_small_or_missing_ones_do_not():
    x, labels = labelled()
    twice = torch.cat([x, x[labels == 0]]), torch.cat([labels, labels[labels == 0]])
    extra = torch.randn(4, 6, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    few = torch.cat([x, extra]), torch.cat([labels, torch.tensor([77, 77, -1, -1])])
    unlabelled = torch.cat([x, extra]), torch.cat([labels, torch.tensor([-1, -1, -1, -1])])

    def scatter(x, labels):
        w = label_whitening(x, labels, shrink=0.0, power=0.0).projection
        return torch.linalg.inv(w.T @ w)

    torch.testing.assert_close(scatter(x, labels), scatter(*twice))
    torch.testing.assert_close(scatter(x, labels), scatter(*few))
    torch.testing.assert_close(scatter(x, labels), scatter(*unlabelled))


def test_what_varies_between_views_counts_little():
    x, labels = labelled(labels=40)
    seen, unseen = labels < 20, labels >= 20
    fitted = label_whitening(x[seen], labels[seen], shrink=0.1)
    plain = pca_whitening(x[seen], power=0.1)
    by_labels, by_pca = (
        nearest_is_right(w.apply(x[unseen]), labels[unseen]) for w in (fitted, plain)
    )
    assert by_labels > by_pca + 0.1


def test_rows_longer_than_many_go_through_their_principal_components():
    x, labels = labelled(labels=6, each=4, d=60)
    whitening = label_whitening(x, labels)
    assert whitening.projection.shape == (23, 60)
    assert label_whitening(x, labels, components=10).projection.shape == (10, 60)
    turned = torch.linalg.qr(torch.randn(60, 60, dtype=torch.float64))[0]
    other = label_whitening(x @ turned, labels).apply(x @ turned)
    rows = whitening.apply(x)
    torch.testing.assert_close(rows @ rows.T, other @ other.T)


def test_without_labels_it_is_pca_however_long_the_rows():
    x, _ = labelled()
    found, expected = label_whitening(x, None, power=0.25), pca_whitening(x, power=0.25)
    rows, wanted = found.apply(x, 4), expected.apply(x, 4)
    torch.testing.assert_close(rows @ rows.T, wanted @ wanted.T)
    long = torch.rand(5, 20_000)  # its covariance would not fit into memory
    assert label_whitening(long, None).projection.shape == (4, 20_000)


def test_label_whitening_is_the_same_in_single_precision_and_as_a_linear_layer():
    x, labels = labelled()
    whitening = label_whitening(x.float(), labels)
    rows = torch.nn.functional.normalize(whitening.linear(4)(x.float()), dim=1)
    torch.testing.assert_close(rows, whitening.apply(x.float(), 4))


def test_shrink_is_chosen_by_labels_left_out():
    x, labels = labelled(labels=40)
    best, means = choose_shrink(x, labels, nearest_is_right, shrinks=(0.1, 1.0), folds=4)
    assert best == 0.1 and means[0.1] > means[1.0] and list(means) == [0.1, 1.0]
    seen = []
    choose_shrink(
        x, labels, lambda rows, left: seen.append(set(left.tolist())) or 0.0, shrinks=(0.5,), dim=3
    )
    assert [len(s) for s in seen] == [8] * 5 and set.union(*seen) == set(range(40))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: label_whitening(x, y[:3]), r"expected 60 labels.*got \(3,\)"),
        (lambda x, y: label_whitening(x, y, shrink=1.5), "shrink in 0 … 1"),
        (lambda x, y: label_whitening(x, y, components=0), "components >= 1"),
        (lambda x, y: label_whitening(x, torch.arange(60)), "at least one label with 3 rows"),
        (lambda x, y: label_whitening(x[:3], torch.zeros(3).long(), shrink=0), None),
        (lambda x, y: choose_shrink(x, y, nearest_is_right, folds=1), "folds >= 2"),
    ],
)
def test_label_whitening_names_bad_input(call, message):
    x, labels = labelled()
    if message is None:  # two axes hold three rows: nothing is missing
        assert len(call(x, labels).projection) == 2
        return
    with pytest.raises(ValueError, match=message):
        call(x, labels)


def test_a_scatter_that_misses_a_direction_asks_for_shrinking():
    x, labels = labelled()
    x = x.unflatten(0, (12, 5))
    x[:, :, 3] = x[:, :1, 3]
    with pytest.raises(ValueError, match="expected shrink > 0"):
        label_whitening(x.flatten(0, 1), labels, shrink=0.0)
