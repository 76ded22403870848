"""An index on disk: a manifest, segments of rows with their names, and what was set aside.

``manifest.json`` names everything that counts, and takes its place last; files bear their content's
hash, so old and new never mix and a reader during an update sees the one or the other. Adding k
rows writes a segment of k, now and then joined with its neighbours of the same size (as a binary
counter carries: each row is rewritten O(log M) times). A row that is dropped stays in its segment
until a quarter of all are dropped.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from spatial_retrieval.features.columns import Strings, pack_strings
from spatial_retrieval.features.store import Blocks, Shard, ShardError, open_shard, write_shard
from spatial_retrieval.files import write_json
from spatial_retrieval.index.legacy import read_format_1
from spatial_retrieval.index.rows import Rows

__all__ = ["Contents", "add_segment", "commit", "positions_after", "read_index", "selected"]

_FORMAT = 2
_BLOCK = 1 << 15  # rows
_LARGEST = 1 << 22  # rows that are still joined with others
_CHECKED = 1 << 24  # bytes; segments up to this size are checked whenever they are opened


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """An index as it is on disk.

    Attributes:
        rows, names, stamps: (M, D); M names, each once; what identifies each file's content.
        info: what was saved with it.
        set_aside: name → reason and stamp, of files without a row.
        segments: open, in order; ``rows`` are a choice of theirs.
    """

    rows: Rows
    names: Sequence[str]
    stamps: Sequence[str]
    info: Mapping[str, Any]
    set_aside: Mapping[str, Sequence[str]] = field(default_factory=dict)
    segments: Sequence[Shard] = ()


def read_index(folder: str | os.PathLike[str], *, verify: bool = False) -> Contents:
    """Open an index: in milliseconds, as only small segments are checked byte by byte.

    Args:
        folder: of the index.
        verify: read and check every byte.

    Raises:
        ValueError: if there is no index, or it is damaged.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    while True:
        try:
            return _contents(folder, manifest, verify)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise _damaged(f"{folder / 'manifest.json'}: {error!r}") from error
        except ShardError as error:
            newer = _manifest(folder)  # an update may have come between
            if newer == manifest:
                raise _damaged(str(error)) from error
            manifest = newer


def add_segment(
    folder: Path, rows: "np.ndarray | Blocks", names: Sequence[str], stamps: Sequence[str]
) -> Shard:
    """Write rows (k, D) with their names; they count once they are committed."""
    name_bytes, name_ends = pack_strings(names)
    stamp_bytes, stamp_ends = pack_strings(stamps)
    arrays = {"rows": rows, "names": name_bytes, "name_ends": name_ends}
    arrays |= {"stamps": stamp_bytes, "stamp_ends": stamp_ends}
    return _addressed(folder, "segment", arrays)


def selected(
    segments: Sequence[Shard],
    positions: np.ndarray,
    info: Mapping[str, Any],
    set_aside: Mapping[str, Sequence[str]],
) -> Contents:
    """An index of some of the rows of segments, by position (M,) among all of them."""
    total = sum(len(segment.arrays["rows"]) for segment in segments)
    chosen = None if np.array_equal(positions, np.arange(total)) else positions.astype(np.int64)
    return Contents(*_of(segments, chosen), info, set_aside, segments)


def positions_after(old: Contents | None, stays: Sequence[bool], new: int) -> np.ndarray:
    """Positions among all rows of the segments: those of the old index that stay, then new ones."""
    if old is None:
        return np.arange(new)
    total = sum(len(segment.arrays["rows"]) for segment in old.segments)
    before = np.arange(total) if old.rows.chosen is None else old.rows.chosen
    return np.concatenate([before[np.array(stays, bool)], np.arange(total, total + new)])


def commit(folder: Path, contents: Contents) -> None:
    """Make this the index: join what is to be joined, write the manifest, delete what is left."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen, segments = contents.rows.chosen, list(contents.segments)
    total = sum(len(segment.arrays["rows"]) for segment in segments)
    if chosen is not None and len(chosen) < 0.75 * total:
        segments, chosen = [_joined(folder, contents.rows, contents.names, contents.stamps)], None
    while len(segments) > 1 and _may_join(segments[-2], segments[-1]):
        segments[-2:] = [_joined(folder, *_of(segments[-2:]))]
    kept = None if chosen is None else _addressed(folder, "chosen", {"ids": chosen})
    files = [*segments, *([kept] if kept else [])]
    manifest = {
        "format": _FORMAT,
        "count": len(contents.rows),
        "dim": contents.rows.shape[1],
        "segments": [_entry(segment) for segment in segments],
        "chosen": None if kept is None else _entry(kept),
        "info": dict(contents.info),
    }
    write_json(folder / "set-aside.json", dict(contents.set_aside))
    write_json(folder / "manifest.json", manifest)
    _delete_others(folder, {shard.path.name for shard in files})


def _contents(folder: Path, manifest: Mapping[str, Any], verify: bool) -> Contents:
    if manifest["format"] == 1:
        return Contents(*read_format_1(folder, manifest))
    segments = [_opened(folder, entry, verify) for entry in manifest["segments"]]
    chosen = None
    if manifest["chosen"] is not None:
        chosen = _opened(folder, manifest["chosen"], verify).arrays["ids"]
    rows, names, stamps = _of(segments, chosen)
    if (len(rows), rows.shape[1]) != (manifest["count"], manifest["dim"]):
        raise KeyError(f"{manifest['count']} rows")
    return Contents(rows, names, stamps, manifest["info"], _set_aside(folder), segments)


def _of(segments: Sequence[Shard], chosen: np.ndarray | None = None) -> tuple[Rows, Strings, Any]:
    """The rows, names and stamps of segments."""
    arrays = [segment.arrays for segment in segments]
    return (
        Rows([each["rows"] for each in arrays], chosen),
        Strings([(each["names"], each["name_ends"]) for each in arrays], chosen),
        Strings([(each["stamps"], each["stamp_ends"]) for each in arrays], chosen),
    )


def _joined(folder: Path, rows: Rows, names: Sequence[str], stamps: Sequence[str]) -> Shard:
    blocks = Blocks(np.float32, rows.shape, (block for _, block in rows.blocks(_BLOCK)))
    return add_segment(folder, blocks, names, stamps)


def _may_join(before: Shard, last: Shard) -> bool:
    m, k = len(before.arrays["rows"]), len(last.arrays["rows"])
    return m <= 2 * k and m + k <= _LARGEST


def _addressed(folder: Path, stem: str, arrays: Mapping[str, Any]) -> Shard:
    """Write under a name that holds the content's hash."""
    new = folder / f"{stem}.new"
    digest = write_shard(new, arrays)
    path = folder / f"{stem}-{digest[:16]}.safetensors"
    os.replace(new, path)
    return open_shard(path)


def _opened(folder: Path, entry: Mapping[str, Any], verify: bool) -> Shard:
    shard = open_shard(folder / Path(entry["file"]).name)
    if shard.digest != entry["sha256"]:
        raise ShardError(f"{shard.path}: damaged (not the file that the manifest names)")
    size = sum(array.nbytes for array in shard.arrays.values())
    return shard.verify() if verify or size <= _CHECKED else shard


def _entry(shard: Shard) -> dict[str, Any]:
    return {"file": shard.path.name, "sha256": shard.digest}


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{folder}: no index here (manifest.json is missing)") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{folder}: damaged index (manifest.json: {error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") not in (1, _FORMAT):
        raise ValueError(
            f"{folder}: this index is of another version; delete this folder and index again"
        )
    return manifest


def _set_aside(folder: Path) -> dict[str, list[str]]:
    """Name → reason and stamp; a list that is missing or damaged only costs looking again."""
    try:
        found = json.loads((folder / "set-aside.json").read_text(encoding="utf-8"))
        return {str(name): [str(reason), str(stamp)] for name, (reason, stamp) in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _delete_others(folder: Path, kept: set[str]) -> None:
    patterns = ("segment-*", "chosen-*", "*.new", "descriptors-*.npy", "names-*.json")
    for path in chain.from_iterable(folder.glob(pattern) for pattern in patterns):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def _damaged(what: str) -> ValueError:
    return ValueError(f"damaged index: {what}; delete this folder and index again")
