import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_retrieval.evaluate import folder as module
from spatial_retrieval.evaluate.folder import folder_scores, split_folder
from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank.order import without_self


def _unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _plainly(rows, labels, queries, database):
    """mAP by comparing every query with every database image, one at a time."""
    aps = []
    for q in queries:
        others = [i for i in database if i != q]
        order = sorted(others, key=lambda i: (-float(rows[q] @ rows[i]), i))
        total = sum(labels[i] == labels[q] for i in others)
        if not total:
            continue
        ap, hits, last = 0.0, 0, 1.0
        for rank, i in enumerate(order):
            hits += labels[i] == labels[q]
            if labels[i] == labels[q]:
                ap += (last + hits / (rank + 1)) / 2 / total
            last = hits / (rank + 1)
        aps.append(ap)
    return np.mean(aps) if aps else float("nan")


@st.composite
def _folders(draw):
    labels = draw(st.lists(st.sampled_from("abc"), min_size=2, max_size=9))
    labels[:2] = ["a", "b"]
    asks = draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))
    asks[0] = False
    names = [
        f"{label}/{'Query' if ask else 'view'}_{i}.jpg"
        for i, (label, ask) in enumerate(zip(labels, asks, strict=True))
    ]
    return names, draw(st.integers(0, 10**6))


@given(_folders())
def test_equals_plain_loops(case):
    names, seed = case
    rows = _unit(np.random.default_rng(seed).standard_normal((len(names), 5)))
    split = split_folder(names)
    scores = folder_scores(rows, split)
    labels = [name[0] for name in names]
    asks = [i for i, name in enumerate(names) if "Query" in name]
    rest = [i for i in range(len(names)) if i not in asks]
    expected = _plainly(rows, labels, asks or rest, rest)
    assert split.leave_one_out is not bool(asks)
    assert scores.map == pytest.approx(expected, nan_ok=True)


def test_macro_weighs_labels_alike():
    names = ["a/1.jpg", "a/2.jpg", "a/3.jpg", "b/1.jpg", "b/2.jpg", "c/1.jpg"]
    rows = _unit(np.array([[1, 0], [1, 0], [1, 0.0], [0, 1], [1, 0.1], [-1, 0]]))
    scores = folder_scores(rows, split_folder(names))
    by_label = [np.mean(scores.ap_per_query[scores.query_labels == i]) for i in (0, 1)]
    assert scores.macro_map == pytest.approx(np.mean(by_label))
    assert scores.map == pytest.approx((3 * by_label[0] + 2 * by_label[1]) / 5)
    assert np.isnan(scores.ap_per_query[5])  # no other photograph of c


def test_nobody_answers_itself():
    rows = _unit(np.eye(4))
    scores = folder_scores(rows, split_folder(["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"]))
    assert scores.mp_at[1] < 1
    ranking = Ranking([[2, 0, 1], [1, 2, 0]], [[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]])
    left = without_self(ranking, np.array([0, 1]))
    assert left.ids.tolist() == [[2, 1], [2, 0]]
    assert left.scores.tolist() == pytest.approx(np.array([[0.9, 0.7], [0.5, 0.4]]))


@pytest.mark.parametrize("prefix", ["view", "query"])
def test_pieces_give_the_same_as_the_whole(monkeypatch, prefix):
    names = [f"{'abc'[i % 3]}/{prefix if i < 6 else 'x'}{i}.jpg" for i in range(12)]
    rows = _unit(np.random.default_rng(0).standard_normal((12, 4)))
    seen = []

    def rerank(ranking, asked):
        seen.append(asked.tolist())
        return ranking

    whole = folder_scores(rows, split_folder(names), rerank=rerank)
    monkeypatch.setattr(module, "_CELLS", 30)
    pieces = folder_scores(rows, split_folder(names), rerank=rerank)
    np.testing.assert_array_equal(whole.ap_per_query, pieces.ap_per_query)
    assert len(seen) > 2 and [q for part in seen[1:] for q in part] == seen[0]


def test_a_reranker_changes_the_scores():
    names = ["a/query.jpg", "a/1.jpg", "b/1.jpg"]
    rows = _unit(np.array([[1, 0], [0.5, 1], [1, 0.1]]))
    split = split_folder(names)
    assert folder_scores(rows, split).map == 0.25

    def turn(ranking, asked):
        return Ranking(ranking.ids[:, ::-1], ranking.scores)

    assert folder_scores(rows, split, rerank=turn).map == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/1.jpg", "x.jpg"], "sub-folder that is its label"),
        (["a/1.jpg", "a/2.jpg"], "at least 2 sub-folders as labels, got 1"),
        (["a/query1.jpg", "b/query2.jpg"], r"query\* files only"),
    ],
)
def test_other_folders_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        split_folder(names)


def test_each_name_needs_a_descriptor():
    with pytest.raises(ValueError, match="expected 2 descriptors, got 1"):
        folder_scores(np.eye(1, dtype=np.float32), split_folder(["a/1.jpg", "b/1.jpg"]))
