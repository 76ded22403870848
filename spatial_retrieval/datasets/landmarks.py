"""Photographs to learn from, in the formats in which they are published.

SfM-120k (Radenović, Tolias, Chum, *Fine-tuning CNN image retrieval with no human annotation*,
TPAMI 2018)::

    retrieval-SfM-120k.pkl          {"train" | "val": {"cids", "cluster", "qidxs", "pidxs"}}
    retrieval-SfM-120k-whiten.pkl   {"cids", "qidxs", "pidxs"}
    ims/<y>/<x>/<w>/<cid>           w, x, y: the last six characters of the cid, in pairs

GLDv2-clean (Weyand et al., CVPR 2020; Yokoo et al., 2020)::

    train_clean.csv                 landmark_id,images with ids separated by spaces
    train/<a>/<b>/<c>/<abc…>.jpg
"""

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spatial_retrieval.datasets.revisited import DatasetMissingError
from spatial_retrieval.datasets.safe_pickle import load_plain_pickle

__all__ = [
    "TrainingImages",
    "load_gldv2_clean",
    "load_sfm120k",
    "load_sfm120k_whitening",
]

_SFM = "retrieval-SfM-120k"
_NO_PAIRS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingImages:
    """N photographs of L landmarks, and P pairs that are known to overlap.

    Attributes:
        paths: N files.
        labels: (N,) int64, the landmark in 0 … L−1, or −1 where the source does not say.
        label_names: L names, as the source calls the landmarks.
        query_ids: (P,) int64, the first image of each pair; empty where the source has no pairs.
        positive_ids: (P,) int64, the second one.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray
    label_names: tuple[str, ...]
    query_ids: np.ndarray = field(default_factory=lambda: _NO_PAIRS)
    positive_ids: np.ndarray = field(default_factory=lambda: _NO_PAIRS)

    def __len__(self) -> int:
        return len(self.paths)


def load_sfm120k(root: str | os.PathLike[str], split: str = "train") -> TrainingImages:
    """Read SfM-120k's "train" or "val" part; nothing in its pickle is executed.

    Raises:
        DatasetMissingError: if the pickle is not below ``root``.
        ValueError: if the split is unknown, or the pickle asks for code or is of another form.
    """
    if split not in ("train", "val"):
        raise ValueError(f'expected the split "train" or "val", got {split!r}')
    path = _sfm_file(Path(root), f"{_SFM}.pkl")
    value = load_plain_pickle(path, max_bytes=2**30)
    if not isinstance(value, Mapping) or not isinstance(value.get(split), Mapping):
        raise ValueError(f"{path}: expected a dictionary with {split!r}")
    return _sfm_images(value[split], path, ("cids", "cluster", "qidxs", "pidxs"))


def load_sfm120k_whitening(root: str | os.PathLike[str]) -> TrainingImages:
    """Read the part of SfM-120k from which whitening is learned; its labels are −1.

    Raises:
        DatasetMissingError, ValueError: as :func:`load_sfm120k`.
    """
    path = _sfm_file(Path(root), f"{_SFM}-whiten.pkl")
    value = load_plain_pickle(path, max_bytes=2**30)
    if not isinstance(value, Mapping):
        raise ValueError(f"{path}: expected a dictionary, got {type(value).__name__}")
    return _sfm_images(value, path, ("cids", "qidxs", "pidxs"))


def load_gldv2_clean(root: str | os.PathLike[str], *, partial: bool = False) -> TrainingImages:
    """Read GLDv2-clean.

    Args:
        root: folder of ``train_clean.csv`` and ``train``, or the one that holds ``gldv2-clean``.
        partial: take the images that are there; otherwise one that is missing is an error.

    Raises:
        DatasetMissingError: if the list is not there, or an image that is needed.
        ValueError: if a line of the list is of another form.
    """
    folders = (Path(root), Path(root) / "gldv2-clean")
    root = next((folder for folder in folders if (folder / "train_clean.csv").is_file()), None)
    if root is None:
        missing = folders[0] / "train_clean.csv"
        raise DatasetMissingError(f"{missing} is not there; {_advice('gldv2-clean', folders[0])}")
    paths, labels, names = [], [], []
    for landmark, ids in _gldv2_rows(root / "train_clean.csv"):
        files = [root / "train" / i[0] / i[1] / i[2] / f"{i}.jpg" for i in ids]
        there = [file for file in files if file.is_file()]
        if len(there) < len(files) and not partial:
            missing = next(file for file in files if not file.is_file())
            raise DatasetMissingError(f"{missing} is not there; {_advice('gldv2-clean', root)}")
        if there:
            paths += there
            labels += [len(names)] * len(there)
            names.append(landmark)
    return TrainingImages(tuple(paths), np.array(labels, dtype=np.int64), tuple(names))


def _sfm_file(root: Path, name: str) -> Path:
    for folder in (root, root / "sfm120k", root / _SFM, root / "train" / _SFM):
        if (folder / name).is_file():
            return folder / name
    raise DatasetMissingError(f"{name} is not below {root}; {_advice('sfm120k', root)}")


def _sfm_images(part: Mapping[str, Any], path: Path, keys: tuple[str, ...]) -> TrainingImages:
    for key in keys:
        if not isinstance(part.get(key), list | tuple):
            raise ValueError(f"{path}: expected lists {', '.join(keys)}, {key} is none")
    cids = part["cids"]
    for cid in cids:
        if not isinstance(cid, str) or not re.fullmatch(r"[\w.-]{6,128}", cid) or ".." in cid:
            raise ValueError(f"{path}: expected names of images in cids, got {str(cid)[:40]!r}")
    images = tuple(path.parent / "ims" / c[-2:] / c[-4:-2] / c[-6:-4] / c for c in cids)
    labels, names = np.full(len(cids), -1), ()
    if "cluster" in keys:
        clusters = _whole(part["cluster"], None, f"{path}: cluster")
        if len(clusters) != len(cids):
            raise ValueError(f"{path}: expected {len(cids)} clusters, got {len(clusters)}")
        found, labels = np.unique(clusters, return_inverse=True)
        names = tuple(map(str, found))
    queries, positives = (
        _whole(part[key], len(cids), f"{path}: {key}") for key in ("qidxs", "pidxs")
    )
    if len(queries) != len(positives):
        raise ValueError(f"{path}: expected as many qidxs as pidxs, got {len(queries)}")
    return TrainingImages(images, labels.astype(np.int64), names, queries, positives)


def _whole(values: Sequence[object], below: int | None, where: str) -> np.ndarray:
    limit = 2**62 if below is None else below
    for value in values:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 0 <= value < limit:
            raise ValueError(f"{where}: expected whole numbers from 0 to {limit - 1}")
    return np.array(values, dtype=np.int64)


def _gldv2_rows(listing: Path) -> list[tuple[str, list[str]]]:
    rows = []
    with listing.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        if next(reader, None) != ["landmark_id", "images"]:
            raise ValueError(f"{listing}: expected the header landmark_id,images")
        for line, row in enumerate(reader, start=2):
            ids = row[1].split() if len(row) == 2 else []
            if not ids or not row[0].isdigit():
                raise ValueError(f"{listing}, line {line}: expected a landmark and its images")
            if not all(re.fullmatch(r"[0-9a-f]{16}", i) for i in ids):
                raise ValueError(f"{listing}, line {line}: expected image ids of 16 hex digits")
            rows.append((row[0], ids))
    return rows


def _advice(name: str, root: Path) -> str:
    return f"get it with: spatial-retrieval data download {name} --root {root}"
