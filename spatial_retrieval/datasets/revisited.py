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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spatial_retrieval.datasets.fields import (
    dictionary,
    frozen,
    image_ids,
    image_names,
    query_box,
    sequence,
)
from spatial_retrieval.datasets.safe_pickle import load_plain_pickle

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
    """Which database images hit which query. M database images, Q queries.

    Attributes:
        names: M names of the database images, without suffix.
        query_names: Q names of the query images.
        boxes: (Q, 4) float64, the query object in its image, pixels (x0, y0, x1, y1).
        easy: per query the ids of clearly visible hits, ascending int64 in [0, M).
        hard: per query the ids of hits under difficult conditions.
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
        object.__setattr__(self, "names", image_names(self.names, "imlist"))
        object.__setattr__(self, "query_names", image_names(self.query_names, "qimlist"))
        boxes = [query_box(box, query) for query, box in enumerate(self.boxes)]
        object.__setattr__(self, "boxes", frozen(np.reshape(boxes, (count, 4))))
        for what in _LISTS:
            ids = (
                image_ids(v, what, q, len(self.names)) for q, v in enumerate(getattr(self, what))
            )
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

    Example:
        >>> import tempfile
        >>> query = {"bbx": [0, 0, 9, 9], "easy": [0], "hard": [], "junk": [1]}
        >>> value = {"imlist": ["a", "b"], "qimlist": ["q"], "gnd": [query]}
        >>> file = Path(tempfile.mkdtemp()) / "gnd.json"
        >>> _ = file.write_text(json.dumps(value))
        >>> load_ground_truth(file).easy
        (array([0]),)
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
            names = image_names(lines, str(listing))
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
    top = dictionary(value, ("imlist", "qimlist", "gnd"), "the file")
    queries = sequence(top["gnd"], "gnd")
    parsed = [dictionary(q, ("bbx", *_LISTS), f"gnd[{i}]") for i, q in enumerate(queries)]
    return RevisitedGroundTruth(
        names=tuple(sequence(top["imlist"], "imlist")),
        query_names=tuple(sequence(top["qimlist"], "qimlist")),
        boxes=[q["bbx"] for q in parsed],  # type: ignore[arg-type]
        **{what: tuple(q[what] for q in parsed) for what in _LISTS},
    )
