r"""Bootstrap intervals: how much a mean would move had other landmarks (or queries) been drawn.

Values that belong together (all queries of one landmark) are not independent, so whole groups are
drawn with replacement. With :math:`s_g` the sum and :math:`n_g` the number of the values of group
g, and :math:`w_g` how often g was drawn, one resample has the mean

.. math:: \mu_w = \sum_g w_g s_g \,/\, \sum_g w_g n_g .

The interval is the percentile interval of the resampled means (Efron & Tibshirani, *An
Introduction to the Bootstrap*, 1993, chapters 13 and 16). NaN marks a query without a hit and
is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Interval", "bootstrap_interval", "paired_bootstrap"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the interval around it.

    Attributes:
        value: mean over all values that are not NaN; NaN when there is none.
        low: lower end of the interval.
        high: upper end of the interval.

    Example:
        >>> print(Interval(0.512, 0.47, 0.554))
        51.2 [47.0, 55.4]
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """In percent, one decimal: ``51.2 [47.0, 55.4]``."""
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def signed(self) -> str:
        """As a difference in percentage points: ``+1.2 [-0.3, +2.7]``."""
        return f"{100 * self.value:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[int] | np.ndarray | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of ``values`` with a percentile bootstrap interval over ``groups``.

    Args:
        values: (N,) numbers; NaN is left out.
        groups: (N,) labels; values with one label are drawn together. None: each value by itself.
        level: share of resampled means inside the interval, in (0, 1).
        resamples: number of resamples.
        seed: of the resampling.

    Raises:
        ValueError: if shapes differ, or level or resamples is out of range.

    Example:
        >>> print(bootstrap_interval([1.0, 1.0, 1.0]))
        100.0 [100.0, 100.0]
    """
    sums, counts = _group_sums(values, groups)
    _check(level, resamples)
    if not len(sums):
        return Interval(float("nan"), float("nan"), float("nan"))
    means = _resampled_means(sums, counts, resamples, seed)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high))


def paired_bootstrap(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    groups: Sequence[int] | np.ndarray | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of ``a - b`` with its interval, for two methods scored on the same queries.

    The same queries are drawn for both, so what makes a query hard for both cancels. The methods
    differ at this level when the interval excludes 0. A query that is NaN for either is left out.

    Args:
        a: (N,) scores of one method.
        b: (N,) scores of the other, in the same order.
        groups: (N,) labels that are drawn together, as in `bootstrap_interval`.
        level: share of resampled means inside the interval, in (0, 1).
        resamples: number of resamples.
        seed: of the resampling.

    Raises:
        ValueError: if shapes differ, or level or resamples is out of range.

    Example:
        >>> paired_bootstrap([0.9, 0.8], [0.4, 0.3]).low > 0
        True
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"expected a and b of one shape (N,), got {a.shape} and {b.shape}")
    return bootstrap_interval(a - b, groups, level=level, resamples=resamples, seed=seed)


def _group_sums(values: object, groups: object) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"expected values of shape (N,), got {values.shape}")
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    if groups.shape != values.shape:
        raise ValueError(f"expected groups of shape {values.shape}, got {groups.shape}")
    present = ~np.isnan(values)
    _, inverse = np.unique(groups[present], return_inverse=True)
    return np.bincount(inverse, values[present]), np.bincount(inverse).astype(np.float64)


def _resampled_means(sums: np.ndarray, counts: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    g = len(sums)
    drawn = np.random.default_rng(seed).multinomial(g, np.full(g, 1 / g), size=resamples)
    return (drawn @ sums) / (drawn @ counts)  # (resamples,)


def _check(level: float, resamples: int) -> None:
    if not 0 < level < 1:
        raise ValueError(f"expected level in (0, 1), got {level}")
    if resamples < 1:
        raise ValueError(f"expected resamples >= 1, got {resamples}")
