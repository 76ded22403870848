import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_retrieval.metrics.average_precision import (
    average_precision,
    labelled_ap,
    labelled_positives,
    mean_present,
    positive_ranks,
    precision_at,
)


def plain(row, ignored, total, k):
    """AP and precision at k of one query, hit by hit."""
    left = [right for right, out in zip(row, ignored, strict=True) if not out]
    if not total:
        return float("nan"), float("nan")
    area, found, last, latest = 0.0, 0, 1.0, 0
    for rank, right in enumerate(left):
        found += right
        if right:
            area += (last + found / (rank + 1)) / 2 / total
            latest = rank
        last = found / (rank + 1)
    reach = min(k, latest + 1) if found == total else k
    return area, sum(left[:reach]) / reach


@st.composite
def rankings(draw):
    queries, length = draw(st.integers(1, 4)), draw(st.integers(0, 12))
    cells = st.lists(
        st.lists(st.booleans(), min_size=length, max_size=length),
        min_size=queries,
        max_size=queries,
    )
    positive = np.array(draw(cells), bool).reshape(queries, length)
    ignored = np.array(draw(cells), bool).reshape(queries, length)
    missing = draw(st.lists(st.integers(0, 2), min_size=queries, max_size=queries))
    return positive, ignored, (positive & ~ignored).sum(axis=1) + missing


@given(rankings(), st.integers(1, 6))
def test_equals_plain_loops(case, k):
    positive, ignored, total = case
    expected = [plain(row, out, n, k) for row, out, n in zip(positive, ignored, total, strict=True)]
    aps = average_precision(positive, total, ignored=ignored)
    np.testing.assert_allclose(aps, [ap for ap, _ in expected], atol=1e-12)
    precisions = precision_at(positive, total, k, ignored=ignored)
    np.testing.assert_allclose(precisions, [p for _, p in expected], atol=1e-12)


def test_by_hand():
    # right, wrong, right: precision 1 → 1, then 1/2 → 2/3, each over half of the recall
    found = average_precision([[True, False, True]], [2])
    assert found == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert average_precision([[False]], [3]) == 0
    assert np.isnan(average_precision([[False]], [0]))


def test_precision_stops_at_the_last_positive():
    assert precision_at([[True, True, False]], [2], 10) == 1
    assert precision_at([[True, False, False, True]], [2], 10) == 0.5
    assert precision_at([[True]], [2], 10) == 0.1  # the other one is beyond the end of the list


def test_ignored_images_leave_before_ranks_are_counted():
    assert positive_ranks([7, 3, 9, 5], [5, 3], [7]).tolist() == [0, 2]
    assert positive_ranks([7, 3, 9, 5], [5, 3], [9, 7]).tolist() == [0, 1]
    with pytest.raises(ValueError, match="a positive twice"):
        positive_ranks([3, 3], [3])


@given(st.integers(0, 10**6), st.booleans())
def test_labels_equal_plain_loops(seed, leave_one_out):
    rng = np.random.default_rng(seed)
    database = rng.integers(0, 4, 9)
    own = rng.permutation(9)[:5] if leave_one_out else None
    queries = database[own] if leave_one_out else rng.integers(0, 6, 5)
    ids = np.array([rng.permutation(9) for _ in range(5)])
    positive, total = labelled_positives(ids, queries, database, own=own)
    aps = labelled_ap(ids, queries, database, own=own)
    for q in range(5):
        mine = own[q] if leave_one_out else -1
        right = [database[i] == queries[q] and i != mine for i in ids[q]]
        assert positive[q].tolist() == right and total[q] == sum(right)
        expected, _ = plain(right, [False] * 9, sum(right), 1)
        assert aps[q] == pytest.approx(expected, nan_ok=True)


def test_means_leave_out_what_is_nan():
    assert mean_present(np.array([1.0, np.nan, 0.0])) == 0.5
    assert np.isnan(mean_present(np.array([np.nan])))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: average_precision([[True, True]], [1]), r"at most 1 positives .* \(query 0\)"),
        (lambda: average_precision([True], [1]), r"positive \(Q, K\)"),
        (lambda: average_precision([[True]], [1, 1]), r"got \(1, 1\) and \(2,\)"),
        (lambda: precision_at([[True]], [1], 0), "at least 1, got 0"),
    ],
)
def test_bad_calls_say_expected_and_got(call, message):
    with pytest.raises(ValueError, match=message):
        call()
