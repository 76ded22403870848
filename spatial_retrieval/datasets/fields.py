"""Values from files of strangers: each is what it should be, or a ValueError says what it is.

``where`` names the value in the message.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["dictionary", "frozen", "image_ids", "image_names", "query_box", "sequence"]


def dictionary(value: object, keys: Sequence[str], where: str) -> Mapping[str, Any]:
    """``value``, which must be a dictionary that has all ``keys``."""
    if not isinstance(value, Mapping):
        raise ValueError(f"expected {where} to be a dictionary, got {type(value).__name__}")
    missing = [key for key in keys if key not in value]
    if missing:
        raise ValueError(f"expected keys {', '.join(keys)} in {where}, {missing[0]} is missing")
    return value


def sequence(value: object, where: str) -> Sequence[Any]:
    """``value``, which must be a list, a tuple or an array."""
    if not isinstance(value, list | tuple | np.ndarray):
        raise ValueError(f"expected {where} to be a list, got {type(value).__name__}")
    return value


def image_names(values: Sequence[object], where: str) -> tuple[str, ...]:
    """Names become paths below the image folder, so none may lead out of it."""
    seen: set[str] = set()
    for i, name in enumerate(values):
        if not isinstance(name, str):
            raise ValueError(f"expected text in {where}[{i}], got {type(name).__name__}")
        bad = not name or "\\" in name or "\0" in name or name.startswith("/") or ":" in name
        if bad or ".." in name.split("/"):
            raise ValueError(f"{where}[{i}] is no name of an image in the folder: {name[:80]!r}")
        if name in seen:
            raise ValueError(f"expected each name once in {where}, got {name[:80]!r} twice")
        seen.add(name)
    return tuple(values)  # type: ignore[arg-type]


def query_box(value: object, query: int) -> np.ndarray:
    """A query's box as (4,) float64, x0 < x1 and y0 < y1."""
    items = list(sequence(value, f"bbx of query {query}"))
    if len(items) != 4 or not all(_number(v) for v in items):
        raise ValueError(f"expected bbx of query {query} to be 4 numbers")
    box = np.array([float(v) for v in items])
    if not np.isfinite(box).all() or not (box[:2] < box[2:]).all():
        raise ValueError(f"expected bbx of query {query} as x0 < x1, y0 < y1, got {box.tolist()}")
    return box


def _number(value: object) -> bool:
    if isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, int):
        return abs(value) < 2**53
    return isinstance(value, float | np.integer | np.floating)


def image_ids(value: object, what: str, query: int, count: int) -> np.ndarray:
    """Ids in 0 … count − 1 as ascending int64."""
    items = list(sequence(value, f"{what} of query {query}"))
    for item in items:
        whole = isinstance(item, int | np.integer) and not isinstance(item, bool)
        if not whole or not 0 <= item < count:
            got = item if whole and abs(item) < 2**63 else type(item).__name__
            raise ValueError(
                f"expected {what} of query {query} to be ids from 0 to {count - 1}, got {got}"
            )
    return frozen(np.sort(np.array(items, dtype=np.int64)))


def frozen(array: np.ndarray) -> np.ndarray:
    """The array, which can no longer be written to."""
    array.flags.writeable = False
    return array
