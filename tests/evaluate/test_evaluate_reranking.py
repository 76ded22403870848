"""What re-ranking adds, with its interval and its time."""

import numpy as np
import pytest
from reranking_toys import textured

from spatial_retrieval.evaluate.reranking import (
    PUBLISHED_SECONDS,
    Reranked,
    rerank_timed,
    reranking_table,
    was_needed,
)
from spatial_retrieval.metrics.average_precision import labelled_ap
from spatial_retrieval.metrics.gap import gap_recovered
from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank import FeatureCache, RerankContext

RANKING = Ranking([[0, 1, 2], [2, 1, 0]], [[3, 2, 1], [3, 2, 1]])


def row(name, ap, ids=RANKING.ids, milliseconds=1.0):
    return Reranked(name, Ranking(ids, RANKING.scores), np.array(ap), milliseconds, milliseconds)


def test_labelled_ap_by_hand():
    labels = np.array([5, 5, 8])
    found = labelled_ap(RANKING, np.array([5, 5]), labels)
    assert found[0] == 1
    assert found[1] == pytest.approx(((0 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2) / 2)
    own = labelled_ap(Ranking([[1, 2], [0, 1]], [[1, 0]] * 2), labels[[0, 2]], labels, own=[0, 2])
    assert own[0] == 1
    assert np.isnan(own[1])


def test_gap_equals_plain_loops_over_the_same_draws():
    rng = np.random.default_rng(0)
    base = rng.random(20) / 2
    verified, new = base + 0.3 * rng.random(20), base + 0.2 * rng.random(20)
    groups = rng.integers(0, 5, 20)
    found = gap_recovered(new, base, verified, groups, resamples=50, seed=3)
    drawn = np.random.default_rng(3).multinomial(5, np.full(5, 1 / 5), size=50)
    fractions = []
    for times in drawn:
        chosen = [i for g, t in enumerate(times) for i in np.flatnonzero(groups == g).repeat(t)]
        fractions.append(
            (new[chosen].mean() - base[chosen].mean())
            / (verified[chosen].mean() - base[chosen].mean())
        )
    assert found.value == pytest.approx((new - base).sum() / (verified - base).sum())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(fractions, [0.025, 0.975])))


def test_gap_at_its_ends():
    base, verified = np.array([0.2, 0.4, 0.3]), np.array([0.6, 0.5, 0.9])
    assert gap_recovered(base, base, verified).value == 0
    assert gap_recovered(verified, base, verified).value == pytest.approx(1)
    assert gap_recovered(base - 0.1, base, verified).high < 0
    ignored = gap_recovered([*base, 0.9], [*base, np.nan], [*verified, 0.9])
    assert ignored.value == 0


def test_gap_has_no_meaning_where_verification_adds_nothing():
    base = np.array([0.2, 0.4])
    assert np.isnan(gap_recovered(base + 0.1, base, base).value)
    assert np.isnan(gap_recovered(base + 0.1, base, base - 0.1).low)
    sometimes = gap_recovered(base + 0.1, base, base + np.array([0.3, -0.1]))
    assert sometimes.value == pytest.approx(1)
    assert np.isnan(sometimes.low)
    assert np.isnan(gap_recovered([np.nan], [1.0], [1.0]).value)


def test_timed_run_scores_and_tells_extraction_apart():
    images = [textured(i) for i in range(3)]
    context = RerankContext(
        queries=np.eye(2, 3), database=np.eye(3), query_images=images[:2], database_images=images
    )
    score = lambda ranking: (ranking.ids[:, 0] == [0, 1]).astype(float)  # noqa: E731
    first = rerank_timed("verify", RANKING, context, score)
    assert first.ap.tolist() == [
        1,
        1,
    ]  # query 1 shows image 1, which the initial retrieval put second
    assert first.features_milliseconds > 0
    assert first.milliseconds > 0
    again = rerank_timed("verify", RANKING, context.fresh(), score, label="SV")
    assert again.name == "SV"
    assert again.features_milliseconds < first.features_milliseconds
    assert again.ranking == first.ranking
    assert rerank_timed("none", RANKING, context, score).ranking == RANKING
    with pytest.raises(ValueError, match="expected a re-ranker of"):
        rerank_timed("sorting", RANKING, context, score)


def test_cache_adds_up_what_extraction_cost():
    cache = FeatureCache()
    assert (cache.seconds, cache.cpu_seconds) == (0, 0)
    from spatial_retrieval.rerank import sift

    cache.get(sift(), textured(0))
    once = cache.seconds, cache.cpu_seconds
    assert min(once) > 0
    cache.get(sift(), textured(0))
    assert (cache.seconds, cache.cpu_seconds) == once


def test_verdicts_say_what_changed():
    before, after = row("none", [0.5, 1.0]), row("verify", [1.0, 1.0], [[1, 0, 2], [2, 1, 0]])
    found = was_needed(before, after, np.array([1.2, 0.0]))
    assert [v.needed for v in found] == [True, False]
    assert [v.new_first for v in found] == [True, False]
    assert [v.moved for v in found] == [2, 0]
    assert found[0].uncertainty == 1.2
    longer = Reranked("x", Ranking([[0, 1]], [[1, 0]]), np.array([1.0]), 0, 0)
    with pytest.raises(ValueError, match="two rankings of one shape"):
        was_needed(before, longer, np.zeros(2))


def test_table_compares_with_the_first_search_and_with_verification():
    rows = [row("none", [0.2, 0.4]), row("verify", [0.4, 0.6], milliseconds=900.0)]
    rows.append(row("better model", [0.3, 0.5]))
    lines = reranking_table(rows).splitlines()
    assert len(lines) == 5
    assert lines[3].startswith("| verify | 50.0 [40.0, 60.0] | +20.0 [+20.0, +20.0] | 100 % [")
    assert "900.0" in lines[3]
    assert "50 % [50, 50]" in lines[4]
    flat = reranking_table([row("none", [0.2]), row("verify", [0.2]), row("new", [0.3])])
    assert flat.count("no gap") == 2
    assert reranking_table([rows[0], rows[2]]).splitlines()[3].split(" | ")[3] == ""
    with pytest.raises(ValueError, match="expected a row 'none' among verify, better model"):
        reranking_table(rows[1:])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="three arrays of one shape"):
        gap_recovered([1.0], [1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match=r"groups of shape \(1,\), got \(2,\)"):
        gap_recovered([1.0], [1.0], [1.0], [1, 2])


def test_published_times_are_those_of_the_paper():
    assert PUBLISHED_SECONDS["verify"] / PUBLISHED_SECONDS["initial retrieval"] == pytest.approx(
        66, abs=1
    )
