import numpy as np
import pytest

from spatial_retrieval.train.validation import leave_one_out_map, twin_accuracy


def test_leave_one_out_map_is_that_of_the_revisited_protocol():
    from spatial_retrieval.metrics.average_precision import average_precision

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(17, 3))
    labels = np.array([0] * 7 + [1] * 5 + [2] * 4 + [3])
    by_label = []
    for label in (0, 1, 2):
        aps = []
        for q in np.flatnonzero(labels == label):
            others = [i for i in np.argsort(-(rows @ rows[q])) if i != q]
            positive = labels[others] == label
            aps.append(average_precision(positive[None], [positive.sum()])[0])
        by_label.append(np.mean(aps))
    assert leave_one_out_map(rows, labels) == pytest.approx(np.mean(by_label))


def test_twin_accuracy_compares_within_a_level_only():
    rows = np.array([[1, 0], [0.6, 0.8], [0.8, 0.6], [0.7, 0.71]], dtype=np.float32)
    labels, twins = np.array([0, 0, 1, 1]), np.array([1, 0])
    levels = np.array(["E", "H", "E", "H"])
    # label 0, query E: positive H 0.6 against twin H 0.7, wrong; query H: positive E 0.6 against
    # twin E 0.96, wrong. label 1, query E: H 0.986 against H 0.96, right; query H: E 0.986 > 0.7.
    assert twin_accuracy(rows, labels, twins, levels) == 0.5
    assert twin_accuracy(np.ones((4, 2)), labels, twins, levels) == 0.5  # ties
