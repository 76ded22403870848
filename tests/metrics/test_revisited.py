import contextlib
import json
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spatial_retrieval.datasets.revisited import (
    DatasetMissingError,
    RevisitedGroundTruth,
    load_distractors,
    load_ground_truth,
    open_revisited,
)
from spatial_retrieval.metrics.revisited import (
    hit_kinds,
    protocol_split,
    revisited_scores,
)
from spatial_retrieval.ranking import Ranking

LISTS = ("easy", "hard", "junk")


def _truth(database, *queries):
    """Ground truth from (easy, hard, junk) of each query."""
    columns = {what: tuple(q[i] for q in queries) for i, what in enumerate(LISTS)}
    return RevisitedGroundTruth(
        names=tuple(f"image_{i}" for i in range(database)),
        query_names=tuple(f"query_{i}" for i in range(len(queries))),
        boxes=np.tile([0.0, 0, 4, 4], (len(queries), 1)),
        **columns,
    )


@st.composite
def cases(draw, most_images=14, most_queries=3):
    """A ground truth and a whole random ranking for it."""
    m = draw(st.integers(1, most_images))
    kinds = st.lists(st.sampled_from([*LISTS, "wrong"]), min_size=m, max_size=m)
    queries = draw(st.lists(kinds, min_size=1, max_size=most_queries))
    truth = _truth(
        m, *([[i for i, kind in enumerate(q) if kind == what] for what in LISTS] for q in queries)
    )
    ids = np.array([draw(st.permutations(range(m))) for _ in queries])
    return truth, ids


protocols = st.sampled_from(["E", "M", "H"])


def _plainly(ids, truth, protocol, ks=(1, 5, 10)):
    """The protocol in words: cross out, walk down the list, add trapezoids."""
    aps, precisions = [], []
    for q in range(len(truth)):
        lists = {what: set(getattr(truth, what)[q].tolist()) for what in LISTS}
        good = {"E": lists["easy"], "M": lists["easy"] | lists["hard"], "H": lists["hard"]}
        out = {
            "E": lists["junk"] | lists["hard"],
            "M": lists["junk"],
            "H": lists["junk"] | lists["easy"],
        }
        left = [i for i in ids[q] if i not in out[protocol]]
        found = [i in good[protocol] for i in left]
        total = len(good[protocol])
        if not total:
            aps.append(float("nan"))
            continue
        ap, hits, last = 0.0, 0, 1.0
        for rank, hit in enumerate(found):
            if hit:
                hits += 1
                ap += (last + hits / (rank + 1)) / 2 / total
            last = hits / (rank + 1)
        aps.append(ap)
        row = []
        for k in ks:
            if sum(found) == total:
                k = min(k, max(r for r, hit in enumerate(found) if hit) + 1)
            row.append(sum(found[:k]) / k)
        precisions.append(row)
    return aps, np.mean(precisions, axis=0) if precisions else np.full(len(ks), np.nan)


@given(cases(), protocols)
def test_equals_the_protocol_in_plain_loops(case, protocol):
    truth, ids = case
    scores = revisited_scores(ids, truth, protocol)
    aps, precisions = _plainly(ids, truth, protocol)
    np.testing.assert_allclose(scores.ap_per_query, aps, atol=1e-12)
    np.testing.assert_allclose(list(scores.mp_at.values()), precisions, atol=1e-12)
    present = [ap for ap in aps if ap == ap]
    assert scores.map == pytest.approx(np.mean(present)) if present else np.isnan(scores.map)


@given(cases(), protocols, st.integers(0, 14))
def test_equals_plain_loops_on_lists_that_are_cut_short(case, protocol, keep):
    truth, ids = case
    ids = ids[:, :keep]
    scores = revisited_scores(ids, truth, protocol)
    aps, precisions = _plainly(ids, truth, protocol)
    np.testing.assert_allclose(scores.ap_per_query, aps, atol=1e-12)
    np.testing.assert_allclose(list(scores.mp_at.values()), precisions, atol=1e-12)


@given(cases(), protocols, st.randoms())
def test_permuting_the_database_changes_nothing(case, protocol, random):
    truth, ids = case
    new = np.arange(len(truth.names))
    random.shuffle(new)
    moved = replace(
        truth,
        names=tuple(truth.names[i] for i in np.argsort(new)),
        **{what: tuple(new[v] for v in getattr(truth, what)) for what in LISTS},
    )
    before, after = (
        revisited_scores(ids, truth, protocol),
        revisited_scores(new[ids], moved, protocol),
    )
    np.testing.assert_array_equal(before.ap_per_query, after.ap_per_query)
    assert np.array_equal(list(before.mp_at.values()), list(after.mp_at.values()), equal_nan=True)


@given(cases(most_queries=2), protocols, st.data())
def test_junk_inserted_anywhere_changes_nothing(case, protocol, data):
    truth, ids = case
    m, extra = len(truth.names), data.draw(st.integers(1, 4))
    rows = []
    for row in ids.tolist():
        for image in range(m, m + extra):
            row.insert(data.draw(st.integers(0, len(row))), image)
        rows.append(row)
    more = replace(
        truth,
        names=(*truth.names, *(f"junk_{i}" for i in range(extra))),
        junk=tuple([*v, *range(m, m + extra)] for v in truth.junk),
    )
    before = revisited_scores(ids, truth, protocol)
    after = revisited_scores(rows, more, protocol)
    np.testing.assert_array_equal(before.ap_per_query, after.ap_per_query)
    assert np.array_equal(list(before.mp_at.values()), list(after.mp_at.values()), equal_nan=True)


@given(cases(), protocols)
def test_a_perfect_ranking_is_one_wherever_ignored_images_are(case, protocol):
    truth, ids = case
    positives, ignored = protocol_split(truth, protocol)
    rows = [
        sorted(row, key=lambda i, q=q: i not in positives[q] and (i not in ignored[q] or i % 2))
        for q, row in enumerate(ids.tolist())
    ]
    scores = revisited_scores(rows, truth, protocol)
    answered = [len(p) > 0 for p in positives]
    np.testing.assert_array_equal(np.isnan(scores.ap_per_query), ~np.array(answered))
    assert all(ap == pytest.approx(1) for ap in scores.ap_per_query[answered])
    if any(answered):
        assert list(scores.mp_at.values()) == pytest.approx([1, 1, 1])


@given(cases(), protocols)
def test_scores_lie_between_zero_and_one(case, protocol):
    truth, ids = case
    scores = revisited_scores(ids, truth, protocol)
    values = np.array([scores.map, *scores.mp_at.values(), *scores.ap_per_query])
    assert ((values >= 0) & (values <= 1 + 1e-12) | np.isnan(values)).all()


@given(cases(), protocols)
def test_precision_of_a_list_cut_at_k_is_that_of_the_whole_list(case, protocol):
    truth, ids = case
    truth = replace(truth, **{w: truth.easy if w == "easy" else ((),) * len(truth) for w in LISTS})
    whole = revisited_scores(ids, truth, "E", ks=(3,))
    cut = revisited_scores(ids[:, :3], truth, "E", ks=(3,))
    assert np.array_equal(list(whole.mp_at.values()), list(cut.mp_at.values()), equal_nan=True)


def test_ignored_as_wrong_is_the_mistake_and_scores_lower():
    truth = _truth(3, ([1], [], [0]))
    assert revisited_scores([[0, 1, 2]], truth, "E").map == 1
    assert revisited_scores([[0, 1, 2]], truth, "E", ignored="wrong").map == 0.25


def test_a_query_without_a_positive_is_nan_and_leaves_the_mean():
    truth = _truth(2, ([0], [], []), ([], [1], []))
    scores = revisited_scores([[0, 1], [0, 1]], truth, "E")
    assert scores.map == 1 and scores.mp_at[1] == 1
    assert np.isnan(scores.ap_per_query[1])
    assert np.isnan(revisited_scores([[0, 1], [0, 1]], _truth(2, *[([], [], [])] * 2), "M").map)


def test_distractors_are_wrong_hits():
    truth = _truth(1, ([0], [], []))
    assert revisited_scores([[900_000, 0]], truth, "E").map == 0.25


def test_hits_are_named_by_their_list():
    truth = _truth(4, ([1], [2], [0]))
    assert hit_kinds([3, 0, 1, 2, 9], truth, 0) == ["wrong", "junk", "easy", "hard", "wrong"]


def test_a_ranking_is_scored_like_its_ids():
    truth = _truth(3, ([1], [2], []))
    ranking = Ranking([[2, 0, 1]], [[0.9, 0.8, 0.7]])
    assert (
        revisited_scores(ranking, truth, "M").map == revisited_scores(ranking.ids, truth, "M").map
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: revisited_scores([[0], [1]], t, "M"), r"shape \(1, K\), got \(2, 1\)"),
        (lambda t: revisited_scores([0, 1], t, "M"), r"shape \(1, K\), got \(2,\)"),
        (lambda t: revisited_scores([[0.5]], t, "M"), "whole numbers as ids, got float64"),
        (lambda t: revisited_scores([[-1, 0]], t, "M"), "ids >= 0, got -1"),
        (lambda t: revisited_scores([[0, 0]], t, "M"), "a positive twice"),
        (lambda t: revisited_scores([[0]], t, "easy"), "protocol E, M or H, got 'easy'"),
        (lambda t: revisited_scores([[0]], t, "M", ks=(0,)), r"at least 1, got \(0,\)"),
        (lambda t: revisited_scores([[0]], t, "M", ignored="kept"), "got 'kept'"),
    ],
)
def test_bad_calls_say_expected_and_got(call, message):
    with pytest.raises(ValueError, match=message):
        call(_truth(3, ([0], [1], [2])))


# ---------------------------------------------------------------- reference values


@pytest.mark.parametrize("dataset", ["roxford5k", "rparis6k"])
def test_the_official_evaluator_agrees(shared, dataset):
    truth = load_ground_truth(shared / "golden" / f"gnd_{dataset}.pkl")
    entries = json.loads((shared / "golden" / "revisited.json").read_text())
    entries = [entry for entry in entries if entry["dataset"] == dataset]
    assert entries
    for entry in entries:
        ids = _golden_ranking(truth, entry["seed"], entry["signal"])
        for protocol in "EMH":
            scores, golden = revisited_scores(ids, truth, protocol), entry[protocol]
            assert scores.map == pytest.approx(golden["map"], abs=1e-9)
            assert list(scores.mp_at.values()) == pytest.approx(golden["mp_at_1_5_10"], abs=1e-9)
            aps = np.array(
                [np.nan if ap is None else ap for ap in golden["ap_per_query"]], dtype=float
            )
            np.testing.assert_allclose(scores.ap_per_query, aps, atol=1e-9, rtol=0)


def _golden_ranking(truth, seed, signal):
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((len(truth), len(truth.names)))
    for q in range(len(truth)):
        scores[q, truth.easy[q]] += signal
        scores[q, truth.hard[q]] += 0.5 * signal
        scores[q, truth.junk[q]] += 0.75 * signal
    return np.argsort(-scores, axis=1, kind="stable")


@pytest.mark.parametrize(
    ("dataset", "images", "without_easy"), [("roxford5k", 4993, 2), ("rparis6k", 6322, 0)]
)
def test_the_official_files_are_read_whole(shared, dataset, images, without_easy):
    truth = load_ground_truth(shared / "golden" / f"gnd_{dataset}.pkl")
    assert (len(truth.names), len(truth), truth.boxes.shape) == (images, 70, (70, 4))
    assert sum(len(v) == 0 for v in truth.easy) == without_easy
    assert not set(truth.names) & set(truth.query_names)


# ---------------------------------------------------------------- ground truth files


def _official(**changes):
    """A ground truth with the official keys and types."""
    query = {"bbx": [1.5, 2, 30, 40.25], "easy": [2, 0], "hard": [1], "junk": []}
    value = {
        "imlist": ["all_souls_000001", "b/c", "d"],
        "qimlist": ["q_0", "q_1"],
        "gnd": [query, {**query, "easy": [], "junk": [0]}],
    }
    return {**value, **changes}


def _store(folder, value, name="gnd.pkl"):
    path = folder / name
    path.write_bytes(
        json.dumps(value).encode() if name.endswith("json") else pickle.dumps(value, 1)
    )
    return path


@pytest.mark.parametrize("name", ["gnd.pkl", "gnd.json"])
def test_pickle_and_json_are_read_alike(tmp_path, name):
    truth = load_ground_truth(_store(tmp_path, _official(), name))
    assert truth.names == ("all_souls_000001", "b/c", "d")
    assert truth.query_names == ("q_0", "q_1")
    assert truth.boxes.tolist() == [[1.5, 2, 30, 40.25]] * 2
    assert [v.tolist() for v in truth.easy] == [[0, 2], []]
    assert truth.hard[0].dtype == np.int64
    assert truth.junk[1].tolist() == [0]


def test_what_was_read_cannot_be_changed(tmp_path):
    truth = load_ground_truth(_store(tmp_path, _official()))
    with pytest.raises(ValueError, match="read-only"):
        truth.easy[0][0] = 1
    with pytest.raises(ValueError, match="read-only"):
        truth.boxes[0] = 0


def _query(**changes):
    query = {"bbx": [0, 0, 1, 1], "easy": [], "hard": [], "junk": []}
    return _official(gnd=[query, {**query, **changes}])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "the file to be a dictionary, got list"),
        ({"imlist": [], "qimlist": []}, "gnd is missing"),
        (_official(imlist="abc"), "imlist to be a list, got str"),
        (_official(imlist=["a", 3, "b"]), r"text in imlist\[1\], got int"),
        (_official(imlist=["a", "a", "b"]), "'a' twice"),
        (_official(imlist=["a", "../../etc/passwd", "b"]), r"imlist\[1\] is no name"),
        (_official(imlist=["a", "/etc/passwd", "b"]), "no name"),
        (_official(imlist=["a", "C:\\x", "b"]), "no name"),
        (_official(qimlist=["", "b"]), r"qimlist\[0\] is no name"),
        (_official(qimlist=["a"]), "boxes for 1 queries, got 2"),
        (_official(gnd=[[], []]), r"gnd\[0\] to be a dictionary"),
        (_official(gnd={}), "gnd to be a list, got dict"),
        (_query(easy=[3]), "easy of query 1 to be ids from 0 to 2, got 3"),
        (_query(hard=[-1]), "hard of query 1 .* got -1"),
        (_query(junk=[0.5]), "junk of query 1 .* got float"),
        (_query(junk=[True]), "junk of query 1 .* got bool"),
        (_query(junk=[10**30]), "junk of query 1 .* got int"),
        (_query(easy="0"), "easy of query 1 to be a list, got str"),
        (_query(easy=[0, 0]), "more than one"),
        (_query(easy=[0], junk=[0]), "query 1: an image is in more than one"),
        (_query(bbx=[0, 0, 1]), "bbx of query 1 to be 4 numbers"),
        (_query(bbx=[0, 0, 1, "1"]), "4 numbers"),
        (_query(bbx=[0, 0, 1, 10**400]), "4 numbers"),
        (_query(bbx=[5, 0, 1, 1]), "x0 < x1"),
        (_query(bbx=[0, 0, 1, float("inf")]), "x0 < x1"),
        (_query(bbx=None), "bbx of query 1 to be a list, got NoneType"),
    ],
)
@pytest.mark.parametrize("name", ["gnd.pkl", "gnd.json"])
def test_wrong_files_say_what_is_wrong(tmp_path, value, message, name):
    path = _store(tmp_path, value, name)
    with pytest.raises(ValueError, match=message) as error:
        load_ground_truth(path)
    assert str(path) in str(error.value)


class _Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_ground_truth_that_calls_something_is_refused(tmp_path):
    marker = tmp_path / "executed"
    path = _store(tmp_path, _query(easy=[[[_Attack(marker)]]]))
    with pytest.raises(ValueError, match="nothing was executed"):
        load_ground_truth(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["gnd.pkl", "gnd.json"])
def test_cut_short_files_are_refused(tmp_path, name):
    path = _store(tmp_path, _official(), name)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="no readable"):
        load_ground_truth(path)


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["imlist", "qimlist", "gnd", "bbx", *LISTS]), inner, max_size=7
            )
        ),
        max_leaves=12,
    )
)
def test_any_data_is_read_or_refused(tmp_path_factory, value):
    path = _store(tmp_path_factory.mktemp("any"), value)
    with contextlib.suppress(ValueError):
        load_ground_truth(path)


# ---------------------------------------------------------------- images on disk


def _on_disk(root, where="roxford5k"):
    folder = root / where
    (folder / "jpg").mkdir(parents=True)
    value = _official(imlist=["a", "b", "d"])
    _store(folder, value, "gnd_roxford5k.pkl")
    for name in (*value["imlist"], *value["qimlist"]):
        Image.new("RGB", (50, 50)).save(folder / "jpg" / f"{name}.jpg")
    return folder


@pytest.mark.parametrize("where", ["roxford5k", "datasets/roxford5k", "test/roxford5k", "."])
def test_the_official_layouts_are_found(tmp_path, where):
    folder = _on_disk(tmp_path, where)
    found = open_revisited("roxford5k", tmp_path)
    assert [p.name for p in found.database] == ["a.jpg", "b.jpg", "d.jpg"]
    assert found.queries[1].resolve() == (folder / "jpg" / "q_1.jpg").resolve()


def test_a_missing_data_set_or_image_says_what_to_download(tmp_path):
    with pytest.raises(DatasetMissingError, match="data download roxford5k --root"):
        open_revisited("roxford5k", tmp_path)
    folder = _on_disk(tmp_path)
    (folder / "jpg" / "b.jpg").unlink()
    with pytest.raises(DatasetMissingError, match=r"1 of 5 images .* first .*b\.jpg"):
        open_revisited("roxford5k", tmp_path)
    with pytest.raises(ValueError, match="got 'oxford'"):
        open_revisited("oxford", tmp_path)


def test_distractors_come_in_the_order_of_the_list(tmp_path):
    with pytest.raises(DatasetMissingError, match="revisitop1m"):
        load_distractors(tmp_path)
    folder = tmp_path / "revisitop1m"
    folder.mkdir()
    (folder / "revisitop1m.txt").write_text("0/b.jpg\n0/a.jpg\n")
    assert load_distractors(tmp_path) == (folder / "jpg/0/b.jpg", folder / "jpg/0/a.jpg")
    (folder / "revisitop1m.txt").write_text("../../x.jpg\n")
    with pytest.raises(ValueError, match="no name of an image"):
        load_distractors(tmp_path)
