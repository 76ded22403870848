"""Revisited Oxford and Paris: ground truth, images, distractors.

Radenović, Iscen, Tolias, Avrithis, Chum, *Revisiting Oxford and Paris: Large-Scale Image Retrieval
Benchmarking*, CVPR 2018. ROxford has 4993 database images, RParis 6322, each 70 queries that are
not in the database. For each query the database images are easy, hard, junk, or none of these.

On disk, as the official code lays it out::

    ROOT/roxford5k/gnd_roxford5k.pkl      (or .json with the same keys)
    ROOT/roxford5k/jpg/<name>.jpg         database and query images
    ROOT/revisitop1m/revisitop1m.txt      one distractor a line
    ROOT/revisitop1m/jpg/<line>

``ROOT/datasets/roxford5k`` and ``ROOT/test/roxford5k`` are found as well.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spatial_retrieval.data.safe_pickle import load_plain_pickle

__all__ = [
    "REVISITED",
    "DatasetMissingError",
    "RevisitedGroundTruth",
    "RevisitedImages",
    "load_distractors",
    "load_ground_truth",
    "open_revisited",
]

REVISITED = ("roxford5k", "rparis6k")
_LISTS = ("easy", "hard", "junk")


class DatasetMissingError(ValueError):
    """A data set is not where it was looked for; the message says what to download."""


@dataclass(frozen=True, slots=True, eq=False)
class RevisitedGroundTruth:
    """Which database images answer which query. M database images, Q queries.

    Attributes:
        names: M names of the database images, without suffix.
        query_names: Q names of the query images.
        boxes: (Q, 4) float64, the query object in its image, pixels (x0, y0, x1, y1).
        easy: per query the ids of clearly visible answers, ascending int64 in [0, M).
        hard: per query the ids of answers under difficult conditions.
        junk: per query the ids of images that are neither right nor wrong.

    Raises:
        ValueError: if the parts do not fit together; the message says which and where.
    """

    names: tuple[str, ...]
    query_names: tuple[str, ...]
    boxes: np.ndarray
    easy: tuple[np.ndarray, ...]
    hard: tuple[np.ndarray, ...]
    junk: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        count = len(self.query_names)
        for what in ("boxes", *_LISTS):
            if len(getattr(self, what)) != count:
                raise ValueError(
                    f"expected {what} for {count} queries, got {len(getattr(self, what))}"
                )
        object.__setattr__(self, "names", _names(self.names, "imlist"))
        object.__setattr__(self, "query_names", _names(self.query_names, "qimlist"))
        boxes = [_box(box, query) for query, box in enumerate(self.boxes)]
        object.__setattr__(self, "boxes", _frozen(np.reshape(boxes, (count, 4))))
        for what in _LISTS:
            ids = (_ids(v, what, q, len(self.names)) for q, v in enumerate(getattr(self, what)))
            object.__setattr__(self, what, tuple(ids))
        for query in range(count):
            lists = np.concatenate([getattr(self, what)[query] for what in _LISTS])
            if len(np.unique(lists)) < len(lists):
                raise ValueError(f"query {query}: an image is in more than one of {_LISTS}")

    def __len__(self) -> int:
        return len(self.query_names)


@dataclass(frozen=True, slots=True)
class RevisitedImages:
    """A revisited data set on disk.

    Attributes:
        name: "roxford5k" or "rparis6k".
        ground_truth: see :class:`RevisitedGroundTruth`.
        database: M paths, in the order of ``ground_truth.names``.
        queries: Q paths.
    """

    name: str
    ground_truth: RevisitedGroundTruth
    database: tuple[Path, ...]
    queries: tuple[Path, ...]


def load_ground_truth(path: str | os.PathLike[str]) -> RevisitedGroundTruth:
    """Read the official ``gnd_*.pkl``, without executing anything in it, or JSON of the same keys.

    Raises:
        ValueError: if the pickle asks for code, or the file is damaged, of another type, lacks a
            key, or holds ids, names or boxes that cannot be.
        OSError: if it cannot be read.
    """
    path = Path(path)
    value = _json(path) if path.suffix.lower() == ".json" else load_plain_pickle(path)
    try:
        return _parse(value)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def open_revisited(name: str, root: str | os.PathLike[str]) -> RevisitedImages:
    """Find a revisited data set below ``root``.

    Raises:
        DatasetMissingError: if the ground truth or an image is not there, with what to do.
        ValueError: if the name is unknown or the ground truth is not readable.
    """
    if name not in REVISITED:
        raise ValueError(f"expected a data set {' or '.join(REVISITED)}, got {name!r}")
    folder, annotation = _locate(name, Path(root))
    truth = load_ground_truth(annotation)
    images = folder / "jpg"
    database = tuple(images / f"{n}.jpg" for n in truth.names)
    queries = tuple(images / f"{n}.jpg" for n in truth.query_names)
    missing = [path for path in (*database, *queries) if not path.is_file()]
    if missing:
        raise DatasetMissingError(
            f"{len(missing)} of {len(database) + len(queries)} images of {name} are missing, "
            f"first {missing[0]}; {_advice(name, root)}"
        )
    return RevisitedImages(name, truth, database, queries)


def load_distractors(root: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Paths of the R1M distractors, in the order of the official list ``revisitop1m.txt``.

    Raises:
        DatasetMissingError: if the list is not below ``root``.
        ValueError: if a line leads out of the image folder.
    """
    for folder in _candidates("revisitop1m", Path(root)):
        listing = folder / "revisitop1m.txt"
        if listing.is_file():
            lines = listing.read_text(encoding="utf-8").split()
            names = _names(lines, str(listing))
            return tuple(folder / "jpg" / name for name in names)
    raise DatasetMissingError(
        f"revisitop1m.txt is not below {root}; {_advice('revisitop1m', root)}"
    )


def _candidates(name: str, root: Path) -> tuple[Path, ...]:
    return root / name, root / "datasets" / name, root / "test" / name, root


def _locate(name: str, root: Path) -> tuple[Path, Path]:
    for folder in _candidates(name, root):
        for suffix in (".pkl", ".json"):
            annotation = folder / f"gnd_{name}{suffix}"
            if annotation.is_file():
                return folder, annotation
    raise DatasetMissingError(f"{name} is not below {root}; {_advice(name, root)}")


def _advice(name: str, root: str | os.PathLike[str]) -> str:
    return f"get it with: spatial-retrieval data download {name} --root {os.fspath(root)}"


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no readable JSON ({error})") from error


def _parse(value: object) -> RevisitedGroundTruth:
    top = _keys(value, ("imlist", "qimlist", "gnd"), "the file")
    queries = _sequence(top["gnd"], "gnd")
    parsed = [_keys(q, ("bbx", *_LISTS), f"gnd[{i}]") for i, q in enumerate(queries)]
    return RevisitedGroundTruth(
        names=tuple(_sequence(top["imlist"], "imlist")),
        query_names=tuple(_sequence(top["qimlist"], "qimlist")),
        boxes=[q["bbx"] for q in parsed],  # type: ignore[arg-type]
        **{what: tuple(q[what] for q in parsed) for what in _LISTS},
    )


def _keys(value: object, keys: Sequence[str], where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected {where} to be a dictionary, got {type(value).__name__}")
    missing = [key for key in keys if key not in value]
    if missing:
        raise ValueError(f"expected keys {', '.join(keys)} in {where}, {missing[0]} is missing")
    return value


def _sequence(value: object, where: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple | np.ndarray):
        raise ValueError(f"expected {where} to be a list, got {type(value).__name__}")
    return value


def _names(values: Sequence[object], where: str) -> tuple[str, ...]:
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


def _box(value: object, query: int) -> np.ndarray:
    items = list(_sequence(value, f"bbx of query {query}"))
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


def _ids(value: object, what: str, query: int, count: int) -> np.ndarray:
    items = list(_sequence(value, f"{what} of query {query}"))
    for item in items:
        whole = isinstance(item, int | np.integer) and not isinstance(item, bool)
        if not whole or not 0 <= item < count:
            got = item if whole and abs(item) < 2**63 else type(item).__name__
            raise ValueError(
                f"expected {what} of query {query} to be ids from 0 to {count - 1}, got {got}"
            )
    return _frozen(np.sort(np.array(items, dtype=np.int64)))


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
