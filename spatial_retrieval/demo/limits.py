"""What a visitor may ask for. A public link receives anything; every value passes through here."""

import math
from collections.abc import Sequence
from typing import Any

__all__ = [
    "MAX_ALL_UPLOADS",
    "MAX_HITS",
    "MAX_JPEG_PIXELS",
    "MAX_JSON_BYTES",
    "MAX_JSON_MARKS",
    "MAX_PHOTOGRAPHS",
    "MAX_WHOLE_PIXELS",
    "MAX_POINTS",
    "MAX_QUERIES",
    "MAX_SESSIONS",
    "LONGEST_SIDE",
    "MAX_UPLOAD_BYTES",
    "MAX_VISITOR_UPLOADS",
    "QUERIES_EACH",
    "SESSIONS_EACH",
    "SESSION_SECONDS",
    "UPLOAD_SECONDS",
    "marked_box",
    "choice",
    "number",
    "marked_points",
    "position",
    "whole",
]

MAX_HITS = 48  # hits to one query
MAX_POINTS = 24  # seeds on one query
LONGEST_SIDE = 1024  # pixels of a photograph's longest side, once it is inside
MAX_UPLOAD_BYTES = 15_000_000  # of one file
MAX_JPEG_PIXELS = 40_000_000  # of a JPEG, which is decoded at a fraction of its size
MAX_WHOLE_PIXELS = 16_000_000  # of a PNG or WebP, which is decoded whole
MAX_PHOTOGRAPHS = 60  # in one visitor's gallery
MAX_SESSIONS = 12  # galleries of visitors kept at once
SESSIONS_EACH = 2  # of one visitor
MAX_QUERIES = 48  # queries kept at once
QUERIES_EACH = 16  # of one visitor
SESSION_SECONDS = 3600  # a gallery or query is kept after its last use
UPLOAD_SECONDS = 900  # an upload waits to be used
MAX_VISITOR_UPLOADS = 200_000_000  # bytes of one visitor's uploads that wait
MAX_ALL_UPLOADS = 1_000_000_000  # of everybody's
MAX_JSON_BYTES = 12_000_000  # of one request that is no upload
MAX_JSON_MARKS = 20_000  # commas and brackets in it: each becomes an object many times its size


def whole(value: Any, name: str, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``.

    Raises:
        ValueError: if it is none; the message names it.
    """
    number = _number(value)
    if number is None or number != int(number) or not low <= number <= high:
        raise ValueError(
            f"expected {name} to be a whole number from {low} to {high}, {_got(value)}"
        )
    return int(number)


def number(value: Any, name: str, low: float, high: float) -> float:
    """A number from ``low`` to ``high``."""
    found = _number(value)
    if found is None or not low <= found <= high:
        raise ValueError(f"expected {name} to be a number from {low:g} to {high:g}, {_got(value)}")
    return found


def choice(value: Any, name: str, allowed: Sequence[str]) -> str:
    """One of the allowed words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"expected {name} to be one of {', '.join(allowed)}; {_got(value)}")
    return value


def position(value: Any, name: str, count: int) -> int:
    """A position in a list of ``count``."""
    return whole(value, name, 0, count - 1)


def marked_box(value: Any, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """A box in pixels, cut to an image of ``size`` (width, height); None or empty: no box."""
    if value is None or (isinstance(value, list | tuple) and not value):
        return None
    numbers = [_number(v) for v in value] if isinstance(value, list | tuple) else []
    if len(numbers) != 4 or any(n is None for n in numbers):
        raise ValueError(f"expected a box as four numbers x0, y0, x1, y1, {_got(value)}")
    x0, y0, x1, y1 = numbers
    cut = max(x0, 0.0), max(y0, 0.0), min(x1, float(size[0])), min(y1, float(size[1]))
    if cut[2] - cut[0] < 1 or cut[3] - cut[1] < 1:
        raise ValueError(
            f"expected a box of at least one pixel inside the {size[0]}×{size[1]} query, "
            f"{_got(value)}"
        )
    return cut


def marked_points(value: Any, size: tuple[int, int]) -> list[tuple[float, float, bool]]:
    """Seeds (x, y, wanted) inside an image of ``size``, at most ``MAX_POINTS``."""
    if value is None:
        return []
    if not isinstance(value, list | tuple) or len(value) > MAX_POINTS:
        raise ValueError(f"expected at most {MAX_POINTS} points x, y, wanted, {_got(value)}")
    return [_point(item, size) for item in value]


def _point(item: Any, size: tuple[int, int]) -> tuple[float, float, bool]:
    if not isinstance(item, list | tuple) or len(item) not in (2, 3):
        raise ValueError(f"expected a point as x, y, wanted, {_got(item)}")
    x, y = (_number(v) for v in item[:2])
    wanted = item[2] if len(item) == 3 else True
    if x is None or y is None or wanted not in (0, 1):
        raise ValueError(f"expected a point as x, y, wanted (0 or 1), {_got(item)}")
    if not (0 <= x < size[0] and 0 <= y < size[1]):
        raise ValueError(f"expected a point inside the {size[0]}×{size[1]} query, {_got(item)}")
    return x, y, bool(wanted)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _got(value: Any) -> str:
    text = repr(value)
    return f"got {text[:60]}{'…' if len(text) > 60 else ''}"
