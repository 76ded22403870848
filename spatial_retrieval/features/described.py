"""What is known of files by name: descriptor or reason, kept on disk chunk by chunk."""

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np

from spatial_retrieval.features.extraction import describe_readable
from spatial_retrieval.features.store import ShardStore
from spatial_retrieval.models import RetrievalModel

__all__ = ["DescribedFiles", "Known", "content_stamp", "row_blocks"]

_SAMPLE = 4096  # bytes
_BLOCK = 4096  # rows


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of one file.

    Attributes:
        stamp: of its content; "" if that must be looked at again.
        row: (D,) its descriptor, or None.
        reason: why it has none.
    """

    stamp: str
    row: np.ndarray | None
    reason: str = ""


class DescribedFiles:
    """Descriptors of files, kept as they are made: a run that is killed loses one chunk.

    Args:
        folder: of the shards.
        settings: what descriptors depend on next to the files (model, size, scales, decoding).
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Any) -> None:
        self._store = ShardStore(folder, settings)
        self._known: dict[str, Known] = {}
        for shard in self._store:
            rows = iter(shard.arrays["rows"])
            for name, stamp, reason in shard.facts["items"]:
                self._known[name] = Known(stamp, None if reason else next(rows), reason)

    def find(self, name: str, stamp: str) -> Known | None:
        """What is known of a file with this content."""
        known = self._known.get(name)
        return known if known and stamp and known.stamp == stamp else None

    def describe(
        self,
        model: RetrievalModel,
        folder: Path,
        stamps: dict[str, str],
        *,
        size: int,
        scales: Sequence[float],
    ) -> dict[str, Known]:
        """Describe a chunk of files and keep what came out.

        Args:
            folder: where the files are.
            stamps: name → stamp of each.
        """
        names = list(stamps)
        result = describe_readable(model, [folder / n for n in names], size=size, scales=scales)
        rows = dict(zip(result.kept, result.descriptors, strict=True))
        found = {
            name: Known(
                "" if i in result.transient else stamps[name], rows.get(i), result.failed.get(i, "")
            )
            for i, name in enumerate(names)
        }
        items = [[name, known.stamp, known.reason] for name, known in found.items()]
        self._store.put(list(stamps.items()), {"rows": result.descriptors}, {"items": items})
        return found


def content_stamp(path: str | os.PathLike[str]) -> str:
    """Size, time and a sample of a file's content; empty when it cannot be looked at.

    The sample is the crc32 of 4 KB at its start, middle and end, so that a file that was replaced
    by another of the same size and time is noticed.
    """
    try:
        status = os.stat(path)
        if not S_ISREG(status.st_mode):
            return ""
        with open(path, "rb") as file:
            checksum = 0
            for start in (0, status.st_size // 2, max(0, status.st_size - _SAMPLE)):
                file.seek(start)
                checksum = zlib.crc32(file.read(_SAMPLE), checksum)
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}-{checksum:08x}"


def row_blocks(known: Iterable[Known]) -> Iterator[np.ndarray]:
    """The rows of those that have one, in blocks (≤ 4096, D)."""
    block: list[np.ndarray] = []
    for each in known:
        if each.row is not None:
            block.append(each.row)
        if len(block) == _BLOCK:
            yield np.stack(block)
            block = []
    if block:
        yield np.stack(block)
