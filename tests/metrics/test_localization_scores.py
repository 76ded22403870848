import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_retrieval.metrics.localization import (
    best_box_iou,
    box_iou,
    corloc,
    mask_iou,
    mean_iou,
    pointing_game,
)

SIDE = 12
cell = st.integers(0, SIDE)
boxes = st.tuples(cell, cell, cell, cell).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


def _drawn(box):
    """The same box as a mask, pixel by pixel."""
    x0, y0, x1, y1 = box
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    for y in range(SIDE):
        for x in range(SIDE):
            mask[y, x] = x0 <= x < x1 and y0 <= y < y1
    return mask


@given(boxes, boxes)
def test_box_iou_is_the_iou_of_the_drawn_boxes(a, b):
    assert box_iou(a, b) == pytest.approx(mask_iou(_drawn(a), _drawn(b)))


@given(boxes, boxes)
def test_box_iou_is_symmetric_and_bounded(a, b):
    assert box_iou(a, b) == box_iou(b, a)
    assert 0 <= box_iou(a, b) <= 1


def test_box_iou_with_itself_is_one_apart_is_zero_and_empty_is_zero():
    assert box_iou([1, 2, 3, 5], [1, 2, 3, 5]) == 1
    assert box_iou([0, 0, 1, 1], [1, 0, 2, 1]) == 0
    assert box_iou([1, 1, 1, 1], [1, 1, 1, 1]) == 0


def test_box_iou_gives_all_pairs_by_broadcasting():
    a = np.array([[0, 0, 2, 2], [0, 0, 4, 4], [5, 5, 6, 7]])
    pairs = box_iou(a[:, None], a[:2])
    assert pairs.shape == (3, 2)
    assert pairs == pytest.approx(np.array([[1, 0.25], [0.25, 1], [0, 0]]))


def test_a_box_with_nan_has_no_iou_and_counts_as_a_miss():
    ious = box_iou([[np.nan] * 4, [0, 0, 1, 1]], [0, 0, 1, 1])
    assert np.isnan(ious[0])
    assert corloc(ious) == 0.5
    assert mean_iou(ious) == 0.5


def test_best_box_is_the_one_that_fits_and_none_is_zero():
    assert best_box_iou([0, 0, 2, 2], [[9, 9, 10, 10], [0, 0, 2, 4]]) == 0.5
    assert best_box_iou([0, 0, 2, 2], []) == 0


def test_mask_iou_broadcasts_over_a_batch_and_empty_is_zero():
    truth = np.array([[[1, 1], [0, 0]], [[0, 0], [0, 0]]])
    assert mask_iou(truth, truth).tolist() == [1, 0]
    assert mask_iou(truth, np.array([[255, 0], [0, 0]])).tolist() == [0.5, 0]


def test_corloc_counts_the_threshold_itself():
    assert corloc([0.5, 0.4999]) == 0.5
    assert corloc([0.5, 0.7], threshold=0.7) == 0.5


def test_pointing_reads_x_then_y_and_floors_to_the_pixel():
    mask = np.zeros((3, 5))
    mask[1, 4] = 1
    assert pointing_game([[4, 1]], [mask]) == 1
    assert pointing_game([[4.99, 1.99]], [mask]) == 1
    assert pointing_game([[1, 4]], [mask]) == 0
    assert pointing_game([[5, 1]], [mask]) == 0


def test_pointing_tolerance_is_a_distance():
    mask = np.zeros((9, 9))
    mask[0, 0] = 1
    assert pointing_game([[3, 4]], [mask], tolerance=5) == 1
    assert pointing_game([[3, 4]], [mask], tolerance=4.9) == 0


def test_pointing_misses_without_a_hit_or_an_object():
    mask = np.ones((2, 2))
    assert pointing_game([[np.nan, 0], [0, 0], [0, 0]], [mask, mask * 0, mask]) == 1 / 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: box_iou([0, 0, 1], [0, 0, 1, 1]), r"shape \(…, 4\), got \(3,\)"),
        (lambda: box_iou([2, 0, 1, 1], [0, 0, 1, 1]), "x0 <= x1"),
        (lambda: mask_iou(np.ones((2, 3)), np.ones((3, 2))), r"\(2, 3\) and \(3, 2\)"),
        (lambda: mask_iou(np.ones(3), np.ones(3)), "masks"),
        (lambda: corloc([0.3], threshold=0), r"\(0, 1\], got 0"),
        (lambda: corloc([]), "at least one IoU"),
        (lambda: mean_iou([[0.3]]), r"got \(1, 1\)"),
        (lambda: pointing_game([[0, 0]], []), "for 0 masks"),
        (lambda: pointing_game(np.zeros((0, 2)), []), "N >= 1"),
        (lambda: pointing_game([[0, 0]], [np.ones(3)]), r"mask \(h, w\)"),
        (lambda: pointing_game([[0, 0]], [np.ones((2, 2))], tolerance=-1), ">= 0 pixels"),
    ],
)
def test_bad_input_says_expected_and_got(call, message):
    with pytest.raises(ValueError, match=message):
        call()
