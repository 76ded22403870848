import numpy as np
import pytest

from spatial_retrieval import Ranking


def test_a_ranking_is_a_frozen_copy():
    ids = np.array([[3, 1]])
    ranking = Ranking(ids, [[0.5, 0.25]])
    ids[0, 0] = 9
    assert ranking.ids.tolist() == [[3, 1]]
    assert ranking.ids.dtype == np.int64 and ranking.scores.dtype == np.float32
    assert len(ranking) == 1 and ranking.k == 2
    with pytest.raises(ValueError, match="read-only"):
        ranking.ids[0, 0] = 1
    with pytest.raises(AttributeError):
        ranking.ids = ids


def test_names_follow_the_order():
    assert Ranking([[1, 0], [0, 1]], [[2, 1], [3, 3]]).names("ab") == [["b", "a"], ["a", "b"]]


def test_equality_is_by_value():
    assert Ranking([[1]], [[1]]) == Ranking([[1]], [[1]])
    assert Ranking([[1]], [[1]]) != Ranking([[2]], [[1]])
    assert Ranking([[1]], [[1]]) != 3


@pytest.mark.parametrize(
    ("ids", "scores", "message"),
    [
        ([[1, 2]], [[1.0]], "one shape"),
        ([1, 2], [1.0, 0.5], "one shape"),
        ([[1, 2]], [[0.5, 0.6]], "never rise"),
        ([[1, 2]], [[np.nan, 0.6]], "NaN"),
        ([[1, np.int64(1)]], [[0.6, 0.5]], "at most once"),
        ([[-1, 2]], [[0.6, 0.5]], "ids >= 0"),
    ],
)
def test_what_is_no_ranking_is_refused(ids, scores, message):
    with pytest.raises(ValueError, match=message):
        Ranking(ids, scores)
