import numpy as np
import pytest

from spatial_retrieval.metrics.bootstrap import Interval, bootstrap_interval, paired_bootstrap


def _loops(values, groups, resamples, seed):
    """The same resampling, spelled out: concatenate the drawn groups and take the mean."""
    labels = sorted(set(groups))
    members = [[v for v, g in zip(values, groups, strict=True) if g == k] for k in labels]
    draws = np.random.default_rng(seed).multinomial(
        len(labels), [1 / len(labels)] * len(labels), size=resamples
    )
    return [
        np.mean([v for k, times in enumerate(draw) for v in members[k] * times]) for draw in draws
    ]


@pytest.mark.parametrize("grouped", [False, True])
def test_equals_plain_loops(grouped):
    rng = np.random.default_rng(3)
    values = rng.random(23)
    groups = rng.integers(0, 6, 23) if grouped else np.arange(23)
    found = bootstrap_interval(values, groups if grouped else None, resamples=200, seed=7)
    means = _loops(values.tolist(), groups.tolist(), 200, 7)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_one_value_repeated_in_every_group_has_no_spread():
    assert bootstrap_interval([0.25] * 8, [0, 0, 1, 1, 2, 2, 3, 3]) == Interval(0.25, 0.25, 0.25)


def test_groups_widen_the_interval_of_repeated_measurements():
    values = np.repeat(np.random.default_rng(0).random(10), 20)
    alone = bootstrap_interval(values)
    grouped = bootstrap_interval(values, np.repeat(np.arange(10), 20))
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        interval = bootstrap_interval(rng.random(60), level=0.9, resamples=400, seed=trial)
        hits += interval.low <= 0.5 <= interval.high
    assert 165 <= hits <= 195


def test_nan_is_left_out_and_nothing_gives_nan():
    assert bootstrap_interval([0.5, np.nan, 0.5]).value == 0.5
    assert np.isnan(bootstrap_interval([np.nan, np.nan]).value)
    assert np.isnan(bootstrap_interval([]).high)


def test_paired_difference_is_sharper_than_two_intervals():
    rng = np.random.default_rng(5)
    hard = rng.random(80)
    a, b = hard + 0.05 + 0.01 * rng.random(80), hard
    difference = paired_bootstrap(a, b)
    assert difference.low > 0
    assert bootstrap_interval(a).low < bootstrap_interval(b).high
    assert difference == bootstrap_interval(a - b)
    assert np.isnan(paired_bootstrap([np.nan], [1.0]).value)


def test_text_is_in_percent():
    assert str(Interval(0.5, 0.25, 0.755)) == "50.0 [25.0, 75.5]"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([[1.0]]), r"shape \(N,\), got \(1, 1\)"),
        (lambda: bootstrap_interval([1.0], [1, 2]), r"groups of shape \(1,\), got \(2,\)"),
        (lambda: bootstrap_interval([1.0], level=1.0), r"level in \(0, 1\), got 1"),
        (lambda: bootstrap_interval([1.0], resamples=0), "resamples >= 1, got 0"),
        (lambda: paired_bootstrap([1.0], [1.0, 2.0]), "a and b of one shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
