"""Option values that several commands read."""

import argparse
import math

__all__ = ["box", "fraction", "point", "positive", "scales", "shard"]


def positive(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return value


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    (value,) = _numbers(text, 1, "a number from 0 to 1")
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def box(text: str) -> tuple[float, float, float, float]:
    """X0,Y0,X1,Y1 in pixels, with X0 < X1 and Y0 < Y1."""
    x0, y0, x1, y1 = _numbers(text, 4, "X0,Y0,X1,Y1 in pixels")
    if not (x0 < x1 and y0 < y1):
        raise argparse.ArgumentTypeError(f"expected X0 < X1 and Y0 < Y1, got {text!r}")
    return x0, y0, x1, y1


def point(text: str) -> tuple[float, float]:
    """X,Y in pixels."""
    x, y = _numbers(text, 2, "X,Y in pixels")
    return x, y


def scales(text: str) -> tuple[float, ...]:
    """Factors above 0, separated by commas."""
    values = _numbers(text, None, "factors above 0 such as 1,0.7071,0.5")
    if min(values) <= 0:
        raise argparse.ArgumentTypeError(f"expected factors above 0, got {text!r}")
    return values


def shard(text: str) -> tuple[int, int]:
    """i/n with 0 ≤ i < n."""
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        raise argparse.ArgumentTypeError(f"expected i/n with 0 ≤ i < n, got {text!r}")
    return int(first), int(second)


def _numbers(text: str, count: int | None, expected: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(map(math.isfinite, values)) or (count and len(values) != count):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return values
