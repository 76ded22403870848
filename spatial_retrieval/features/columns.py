"""Strings of any number as two arrays, so that a million names open in no time."""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

__all__ = ["Strings", "pack_strings"]


def pack_strings(values: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Strings → their bytes (n,) uint8 one after another, and where each ends (N,) int64.

    Any file name can be kept, also one that is no valid text (lone surrogates).
    """
    encoded = [value.encode("utf-8", "surrogatepass") for value in values]
    ends = np.cumsum([len(data) for data in encoded], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), ends


class Strings(Sequence[str]):
    """Packed strings as a sequence; each is decoded when it is asked for.

    Args:
        columns: pairs of arrays as :func:`pack_strings` makes them, joined in this order.
        chosen: (M,) positions among all of them; None takes them all.

    Raises:
        ValueError: if ends fall or lie outside their bytes.
    """

    def __init__(
        self,
        columns: Sequence[tuple[np.ndarray, np.ndarray]],
        chosen: np.ndarray | None = None,
    ) -> None:
        self._columns, self._chosen = list(columns), chosen
        self._starts = np.cumsum([0, *(len(ends) for _, ends in self._columns)])
        for data, ends in self._columns:
            if len(ends) and ends[-1] != len(data):
                raise ValueError("expected strings to fill their bytes")

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._chosen is None else len(self._chosen)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return tuple(self[j] for j in range(*i.indices(len(self))))
        i = int(i)
        if not -len(self) <= i < len(self):
            raise IndexError(f"expected a position below {len(self)}, got {i}")
        i = i % len(self) if self._chosen is None else int(self._chosen[i])
        column = int(np.searchsorted(self._starts, i, side="right")) - 1
        data, ends = self._columns[column]
        i -= int(self._starts[column])
        start = int(ends[i - 1]) if i else 0
        return _text(data[start : int(ends[i])].tobytes())

    def __iter__(self):
        if self._chosen is not None:
            return (self[i] for i in range(len(self)))
        return chain.from_iterable(_unpacked(data, ends) for data, ends in self._columns)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None

    def __repr__(self) -> str:
        return f"<{len(self)} strings>"


def _unpacked(data: np.ndarray, ends: np.ndarray) -> Iterable[str]:
    whole, start = data.tobytes(), 0
    for end in ends.tolist():
        yield _text(whole[start:end])
        start = end


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise ValueError(f"expected a name, got {data!r}; is the index damaged?") from error
