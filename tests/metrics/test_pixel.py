import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_retrieval.datasets.pixel import (
    load_found_regions,
    load_labelme,
    load_pixel_labels,
    polygon_mask,
)
from spatial_retrieval.datasets.revisited import DatasetMissingError, RevisitedGroundTruth
from spatial_retrieval.metrics.pixel import (
    mean_pair_iou,
    pair_ious,
    pixel_map,
    pixel_map_curve,
    pixel_scores,
)
from spatial_retrieval.metrics.revisited import revisited_scores


def _truth(database, *queries):
    easy, hard, junk = zip(*queries, strict=True)
    return RevisitedGroundTruth(
        names=tuple(f"i{i}" for i in range(database)),
        query_names=tuple(f"q{q}" for q in range(len(queries))),
        boxes=np.tile([0.0, 0, 1, 1], (len(queries), 1)),
        easy=easy,
        hard=hard,
        junk=junk,
    )


def _rectangle(x0, y0, x1, y1):
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=float)


# ---------------------------------------------------------------- the published formats


def _publish(root, pairs, shapes, as_json=False):
    """Labels on disk as they were published: a pickled map, labelme files in folders."""
    for path, polygons in shapes.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        value = {
            "version": "5.0.1",
            "shapes": [{"label": "o", "points": p.tolist(), "flags": {}} for p in polygons],
            "imagePath": "x.jpg",
            "imageData": None,
        }
        file.write_text(json.dumps(value))
    if as_json:
        (root / "oxford_pair2labelpath.json").write_text(json.dumps(pairs))
    else:
        np.save(root / "oxford_pair2labelpath.npy", pairs, allow_pickle=True)


@pytest.mark.parametrize("as_json", [False, True])
def test_published_labels_are_read(tmp_path, as_json):
    one, two = _rectangle(0, 0, 3, 2), _rectangle(5, 5, 9, 9)
    pairs = {"0_3": "labels/a/x.json", "12_0": "labels/a/x.json", "1_3": "labels/y.json"}
    _publish(tmp_path, pairs, {"labels/a/x.json": [one], "labels/y.json": [one, two]}, as_json)
    labels = load_pixel_labels(tmp_path, "roxford5k")
    assert set(labels) == {(0, 3), (12, 0), (1, 3)}
    np.testing.assert_array_equal(labels[0, 3][0], one)
    assert len(labels[1, 3]) == 2
    mask = polygon_mask(labels[1, 3], (12, 10))
    assert mask.shape == (10, 12)
    assert mask.sum() == 4 * 3 + 5 * 5
    assert mask[2, 3] and not mask[3, 2]


def test_found_regions_are_read_and_empty_ones_left_out(tmp_path):
    value = {"qimlist_0_imlist_3": np.array([[1, 2], [5, 2], [5, 6]]), "qimlist_0_imlist_4": []}
    np.save(tmp_path / "found.npy", value, allow_pickle=True)
    found = load_found_regions(tmp_path / "found.npy")
    assert list(found) == [(0, 3)]
    assert found[0, 3].tolist() == [[1, 2], [5, 2], [5, 6]]
    (tmp_path / "found.json").write_text(json.dumps({"qimlist_7_imlist_1": [[1, 2]]}))
    assert load_found_regions(tmp_path / "found.json")[7, 1].tolist() == [[1, 2]]


def test_a_rectangle_is_its_corners_and_overlap_is_no_hole(tmp_path):
    file = tmp_path / "a.json"
    shape = {"points": [[0, 0], [2, 1]], "shape_type": "rectangle"}
    file.write_text(json.dumps({"shapes": [shape]}))
    assert load_labelme(file)[0].tolist() == [[0, 0], [2, 0], [2, 1], [0, 1]]
    assert polygon_mask([_rectangle(0, 0, 3, 3)] * 2, (4, 4)).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no readable JSON"),
        ("[]", "shapes, got none"),
        ('{"shapes": []}', "shapes, got none"),
        ('{"shapes": [1]}', "shape 0: expected points"),
        ('{"shapes": [{"points": [[0, 0], [1, 1]]}]}', r"n >= 3, 2\), got \(2, 2\)"),
        ('{"shapes": [{"points": [[0, 0], [1, 1], [1]]}]}', r"points \(x, y\)"),
        ('{"shapes": [{"points": [[0, 0], [1, 1], [1, 1e9]]}]}', "million pixels"),
        ('{"shapes": [{"points": [], "shape_type": "circle"}]}', "got 'circle'"),
    ],
)
def test_other_label_files_are_refused(tmp_path, content, message):
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_labelme(file)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"0-3": "a.json"}, "Q_I"),
        ({"0_3": 5}, "Q_I"),
        ({"0_3": "../a.json"}, "leads out"),
        ({"0_3": "/etc/a.json"}, "leads out"),
        ([1], "expected a dictionary"),
    ],
)
def test_a_wrong_map_is_refused(tmp_path, pairs, message):
    (tmp_path / "oxford_pair2labelpath.json").write_text(json.dumps(pairs))
    with pytest.raises(ValueError, match=message):
        load_pixel_labels(tmp_path, "roxford5k")


def test_what_is_missing_or_wrong_is_said(tmp_path):
    with pytest.raises(DatasetMissingError, match="data download pixel-retrieval"):
        load_pixel_labels(tmp_path, "roxford5k")
    with pytest.raises(ValueError, match="got 'oxford'"):
        load_pixel_labels(tmp_path, "oxford")
    (tmp_path / "paris_pair2labelpath.json").write_text('{"0_1": "none.json"}')
    with pytest.raises(DatasetMissingError, match=r"none\.json: no such label file"):
        load_pixel_labels(tmp_path, "rparis6k")
    (tmp_path / "found.json").write_text('{"0_1": [[1, 2]]}')
    with pytest.raises(ValueError, match="qimlist_Q_imlist_I, got '0_1'"):
        load_found_regions(tmp_path / "found.json")


# ---------------------------------------------------------------- IoU as the official code has it


def _official_box_iou(found, polygons):
    """Pixel by pixel on the official canvas."""
    truth = [point for polygon in polygons for point in polygon.tolist()]
    found = [[int(v) for v in point] for point in found]
    truth = [[int(v) for v in point] for point in truth]
    side = max(max(point) for point in found + truth)
    both = either = 0
    for y in range(side):
        for x in range(side):
            inside = [
                min(p[0] for p in points) <= x <= max(p[0] for p in points)
                and min(p[1] for p in points) <= y <= max(p[1] for p in points)
                for points in (found, truth)
            ]
            both += all(inside)
            either += any(inside)
    return both / either if either else 0


coordinate = st.integers(0, 10).map(float) | st.floats(0, 10)
polygons = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=5).map(np.array)


@settings(max_examples=60)
@given(polygons, st.lists(polygons, min_size=1, max_size=2))
def test_box_iou_is_the_official_one(found, truth):
    assert pair_ious(found, tuple(truth))[0] == pytest.approx(_official_box_iou(found, truth))


@given(polygons)
def test_the_same_region_has_iou_one_or_no_area_on_the_canvas(found):
    assert all(iou in (0, 1) for iou in pair_ious(found, (found,)))


def test_mask_iou_differs_from_box_iou_where_the_shape_does():
    triangle = np.array([[0, 0], [40, 0], [0, 40]])
    box, mask = pair_ious(triangle, (_rectangle(0, 0, 40, 40),))
    assert box == 1
    assert mask == pytest.approx(0.5, abs=0.05)


# ---------------------------------------------------------------- mAP@50:5:95


def _official_map(ids, ious, truth, protocol, unlabelled):
    """The published evaluation in plain loops, with what it does to denominators."""
    easy = truth.easy if protocol == "M" else ((),) * len(truth)
    if not any(len(e) + len(h) for e, h in zip(easy, truth.hard, strict=True)):
        return float("nan")
    maps = []
    for percent in range(50, 100, 5):
        total, empty = 0.0, 0
        for q in range(len(truth)):
            if q in unlabelled:
                continue
            lists = {k: set(getattr(truth, k)[q].tolist()) for k in ("easy", "hard", "junk")}
            ok = {"M": lists["easy"] | lists["hard"], "H": lists["hard"]}[protocol]
            out = lists["junk"] | (lists["easy"] if protocol == "H" else set())
            ok = {i for i in ok if ious.get((q, i), 0) > percent / 100}
            if not ok:
                empty += 1
                continue
            left = [i for i in ids[q] if i not in out]
            last, hits = 1.0, 0
            for rank, image in enumerate(left):
                hits += image in ok
                if image in ok:
                    total += (last + hits / (rank + 1)) / 2 / len(ok)
                last = hits / (rank + 1)
        maps.append(total / max(len(truth) - empty, 1))
    return np.mean(maps)


@st.composite
def _cases(draw):
    m = draw(st.integers(2, 9))
    rows, ids, ious = [], [], {}
    for q in range(draw(st.integers(1, 3))):
        kinds = draw(st.lists(st.sampled_from("ehjw"), min_size=m, max_size=m))
        rows.append([[i for i, kind in enumerate(kinds) if kind == k] for k in "ehj"])
        ids.append(draw(st.permutations(range(m))))
        for i in range(m):
            if draw(st.booleans()):
                ious[q, i] = draw(st.sampled_from([0.0, 0.5, 0.52, 0.7, 0.951, 1.0]))
    return np.array(ids), ious, _truth(m, *rows)


@given(_cases(), st.sampled_from("MH"), st.sampled_from([(), (0,), (1,)]))
def test_official_map_equals_plain_loops(case, protocol, unlabelled):
    ids, ious, truth = case
    unlabelled = tuple(q for q in unlabelled if q < len(truth))
    score = pixel_map(ids, ious, truth, protocol, rule="official", unlabelled=unlabelled)
    expected = _official_map(ids, ious, truth, protocol, unlabelled)
    assert score == pytest.approx(expected, nan_ok=True)


@given(_cases(), st.sampled_from("MH"))
def test_everything_localized_is_the_image_map(case, protocol):
    ids, _, truth = case
    ious = {(q, i): 1.0 for q in range(len(truth)) for i in range(len(truth.names))}
    for rule in ("official", "recall"):
        score = pixel_map(ids, ious, truth, protocol, rule=rule)
        expected = revisited_scores(ids, truth, protocol).map
        assert score == pytest.approx(expected, nan_ok=True)


def test_localizing_the_first_hit_alone_fools_the_official_rule_only():
    truth = _truth(4, ([0, 1, 2], [], []))
    ids, first = np.array([[0, 1, 2, 3]]), {(0, 0): 0.99}
    assert pixel_map(ids, first, truth, "M", rule="official") == 1
    assert pixel_map(ids, first, truth, "M", rule="recall") == pytest.approx(1 / 3)


def test_nothing_localized_leaves_the_official_mean_and_is_zero_by_recall():
    truth = _truth(2, ([0], [], []), ([0], [], []))
    ids, ious = np.array([[0, 1], [0, 1]]), {(0, 0): 0.99}
    assert pixel_map(ids, ious, truth, "M", rule="official") == 1
    assert pixel_map(ids, ious, truth, "M", rule="recall") == 0.5


def test_queries_without_labels_stay_in_the_official_denominator_only():
    truth = _truth(2, ([0], [], []), ([0], [], []))
    ids, ious = np.array([[0, 1], [0, 1]]), {(0, 0): 0.99}
    assert pixel_map(ids, ious, truth, "M", rule="official", unlabelled=(1,)) == 0.5
    assert pixel_map(ids, ious, truth, "M", rule="recall", unlabelled=(1,)) == 1


def test_the_curve_falls_where_localization_ends():
    truth, ids = _truth(2, ([0], [], [])), np.array([[0, 1]])
    curve = pixel_map_curve(ids, {(0, 0): 0.72}, truth, "M")
    assert curve.tolist() == [1] * 5 + [0] * 5


def test_thresholds_are_exclusive():
    truth, ids = _truth(2, ([0], [], [])), np.array([[0, 1]])
    assert pixel_map(ids, {(0, 0): 0.5}, truth, "M") == 0
    assert pixel_map(ids, {(0, 0): 0.501}, truth, "M") == pytest.approx(0.1)
    assert pixel_map(ids, {(0, 0): 0.951}, truth, "M") == 1


def test_mean_iou_counts_an_empty_hit_and_the_official_one_skips_easy_ones():
    truth = _truth(4, ([0, 1], [2], []), ([], [3], []))
    ious = {(0, 0): 0.6, (1, 3): 0.2}
    assert mean_pair_iou(ious, truth, "M") == pytest.approx((0.6 / 3 + 0.2) / 2)
    assert mean_pair_iou(ious, truth, "M", rule="official") == pytest.approx((0.3 + 0.2) / 2)
    assert mean_pair_iou(ious, truth, "H") == pytest.approx((0 + 0.2) / 2)
    assert np.isnan(mean_pair_iou({}, _truth(1, ([], [], [0])), "M"))


def test_pixel_scores_puts_boxes_and_masks_side_by_side():
    truth, ids = _truth(3, ([0], [1], [])), np.array([[0, 1, 2]])
    triangle = np.array([[0, 0], [40, 0], [0, 40]], dtype=float)
    labels = {(0, 0): (_rectangle(0, 0, 40, 40),), (0, 1): (_rectangle(0, 0, 40, 40),)}
    scores = pixel_scores(ids, {(0, 0): triangle, (0, 2): triangle}, labels, truth, "M")
    assert scores.official_map["box"] == 1
    assert scores.recall_map["box"] == 0.5
    assert scores.official_map["mask"] < 0.3 and scores.recall_map["mask"] < 0.15
    assert scores.miou["box"] == 0.5
    assert scores.official_miou["box"] == 0.5  # image 1 is hard: its empty hit counts
    assert scores.miou["mask"] == pytest.approx(0.25, abs=0.03)


def test_bad_calls_say_expected_and_got():
    truth = _truth(2, ([0], [], []))
    with pytest.raises(ValueError, match=r"\(1, K\), got \(2,\)"):
        pixel_map(np.array([0, 1]), {}, truth, "M")
    with pytest.raises(ValueError, match="got 'strict'"):
        pixel_map(np.array([[0, 1]]), {}, truth, "M", rule="strict")
    with pytest.raises(ValueError, match="got 'strict'"):
        mean_pair_iou({}, truth, "M", rule="strict")


def test_found_regions_that_call_something_are_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return exec, ("raise SystemExit",)

    header = (tmp_path / "plain.npy", tmp_path / "bad.npy")
    np.save(header[0], {}, allow_pickle=True)
    start = header[0].read_bytes()
    header[1].write_bytes(start[: start.index(b"\n") + 1] + pickle.dumps(Attack()))
    with pytest.raises(ValueError, match="nothing was executed"):
        load_found_regions(header[1])
