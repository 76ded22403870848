r"""How much of spatial verification's gain something else recovers.

Spatial verification is the yardstick. With the mean average precision of the initial
retrieval alone, of the initial retrieval with verification, and of something new (another
re-ranker, or a better descriptor without any), the *gap recovered* is

.. math:: g = \frac{\mathrm{new} - \mathrm{base}}{\mathrm{verified} - \mathrm{base}} .

1 means that verification isn't needed any more, above 1 that it is beaten. Where verification adds
nothing the fraction has no meaning: its interval is then NaN or as wide as it deserves to be.
"""

from collections.abc import Sequence

import numpy as np

from spatial_retrieval.metrics.bootstrap import Interval

__all__ = ["gap_recovered"]


def gap_recovered(
    new: Sequence[float] | np.ndarray,
    base: Sequence[float] | np.ndarray,
    verified: Sequence[float] | np.ndarray,
    groups: Sequence[int] | np.ndarray | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Share of spatial verification's gain that something else recovers.

    The same queries (whole groups of them) are drawn for all three, so the interval is the
    95 % interval of the fraction. Where verification can't improve the initial retrieval it is NaN.

    Args:
        new: (N,) average precisions of what is judged.
        base: (N,) of the initial retrieval.
        verified: (N,) of the initial retrieval with spatial verification.
        groups: (N,) labels that are drawn together; None: each query by itself.
        resamples: number of resamples.
        seed: of the resampling.

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> print(gap_recovered([0.6, 0.6], [0.5, 0.5], [0.7, 0.7]))
        50.0 [50.0, 50.0]
    """
    gains, groups = _gains(new, base, verified, groups)  # (2, N), (N,)
    _, inverse = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(inverse, gain) for gain in gains])  # (2, G)
    g = sums.shape[1]
    if not g:
        return Interval(float("nan"), float("nan"), float("nan"))
    drawn = np.random.default_rng(seed).multinomial(g, np.full(g, 1 / g), size=resamples)
    fractions = _fraction(*(drawn @ sums.T).T)  # (resamples,)
    low, high = np.quantile(fractions, [0.025, 0.975])  # NaN if any is
    return Interval(float(_fraction(*sums.sum(axis=1))), float(low), float(high))


def _gains(
    new: object, base: object, verified: object, groups: object
) -> tuple[np.ndarray, np.ndarray]:
    """(2, N) what the new method and verification gained, and groups, of queries with a hit."""
    new, base, verified = (np.asarray(x, dtype=np.float64) for x in (new, base, verified))
    if not new.shape == base.shape == verified.shape or new.ndim != 1:
        raise ValueError(
            f"expected three arrays of one shape (N,), got {new.shape}, {base.shape} and "
            f"{verified.shape}"
        )
    groups = np.arange(len(new)) if groups is None else np.asarray(groups)
    if groups.shape != new.shape:
        raise ValueError(f"expected groups of shape {new.shape}, got {groups.shape}")
    gains = np.stack([new - base, verified - base])
    present = ~np.isnan(gains).any(axis=0)
    return gains[:, present], groups[present]


def _fraction(gain: np.ndarray, yardstick: np.ndarray) -> np.ndarray:
    gain, yardstick = np.asarray(gain), np.asarray(yardstick)
    nothing = np.full(yardstick.shape, np.nan)
    return np.divide(gain, yardstick, out=nothing, where=yardstick > 0)
