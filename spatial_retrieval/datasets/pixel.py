"""PROxford and PRParis: where in each hit of ROxford and RParis the query object is.

An, Shin, Choi, Kim, Yoon, *Towards Content-based Pixel Retrieval in Revisited Oxford and Paris*,
ICCV 2023. The published files are::

    oxford_pair2labelpath.npy   a dictionary "q_i" → path of a labelme file, or the same as .json
    <that path>                 labelme JSON: ``shapes`` with ``points`` (x, y) in pixels

and a method's hit is one ``.npy`` dictionary ``qimlist_{q}_imlist_{i}`` → (n, 2) boundary points
(x, y), empty where it found nothing. q counts queries and i database images of the revisited ground
truth. A point (x, y) is ``mask[y, x]``.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spatial_retrieval.datasets.pickled_npy import load_pickled_npy
from spatial_retrieval.datasets.revisited import DatasetMissingError

__all__ = [
    "Pair",
    "Polygons",
    "load_found_regions",
    "load_labelme",
    "load_pixel_labels",
    "polygon_mask",
]

Pair = tuple[int, int]  # (query, database image)
Polygons = tuple[np.ndarray, ...]  # each (n, 2) float64, (x, y), n >= 3

_MAPS = {"roxford5k": "oxford_pair2labelpath", "rparis6k": "paris_pair2labelpath"}


def load_pixel_labels(root: str | os.PathLike[str], name: str) -> dict[Pair, Polygons]:
    """Read all labels of PROxford (``name`` "roxford5k") or PRParis ("rparis6k").

    Raises:
        DatasetMissingError: if the map of pairs or a label file is not below ``root``.
        ValueError: if the name is unknown, or a file is damaged or of another form.
    """
    if name not in _MAPS:
        raise ValueError(f"expected {' or '.join(_MAPS)}, got {name!r}")
    root = Path(root)
    pairs = _pair_map(root, _MAPS[name])
    labels: dict[str, Polygons] = {}  # several pairs may share one file
    for path in pairs.values():
        if path not in labels:
            labels[path] = load_labelme(_below(root, path))
    return {pair: labels[path] for pair, path in pairs.items()}


def load_labelme(path: str | os.PathLike[str]) -> Polygons:
    """Polygons (n, 2) of one labelme file, pixels (x, y); a rectangle becomes its four corners.

    Raises:
        DatasetMissingError: if the file isn't there.
        ValueError: if it is no labelme file, or holds shapes without an area.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetMissingError(f"{os.fspath(path)}: no such label file") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)}: no readable JSON ({error})") from error
    shapes = value.get("shapes") if isinstance(value, Mapping) else None
    if not isinstance(shapes, list) or not shapes:
        raise ValueError(f"{os.fspath(path)}: expected labelme's shapes, got none")
    return tuple(_polygon(shape, f"{os.fspath(path)}: shape {i}") for i, shape in enumerate(shapes))


def load_found_regions(path: str | os.PathLike[str]) -> dict[Pair, np.ndarray]:
    """Read a method's hit, (query, image) → (n, 2) boundary points; empty ones are left out.

    Raises:
        ValueError: if the file asks for code, or a key or a boundary is of another form.
    """
    value = _dictionary(Path(path))
    found = {}
    for key, points in value.items():
        match = re.fullmatch(r"qimlist_(\d{1,9})_imlist_(\d{1,9})", str(key))
        if not match:
            raise ValueError(f"{path}: expected keys qimlist_Q_imlist_I, got {str(key)[:60]!r}")
        if len(points):
            found[int(match[1]), int(match[2])] = _points(points, 1, f"{path}: {key}")
    return found


def polygon_mask(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Fill polygons → (h, w) bool, ``size`` = (w, h); coordinates are cut to whole pixels.

    Example:
        >>> polygon_mask([np.array([[0, 0], [1, 0], [1, 1], [0, 1]])], (3, 2)).astype(int).tolist()
        [[1, 1, 0], [1, 1, 0]]
    """
    import cv2

    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    for polygon in polygons:  # one by one: where they overlap is inside, not a hole
        cv2.fillPoly(mask, [np.asarray(polygon).astype(np.int32)], 1)
    return mask.astype(bool)


def _pair_map(root: Path, stem: str) -> dict[Pair, str]:
    files = [root / f"{stem}{suffix}" for suffix in (".npy", ".json")]
    file = next((f for f in files if f.is_file()), None)
    if file is None:
        raise DatasetMissingError(
            f"{stem}.npy is not below {root}; get it with: "
            f"spatial-retrieval data download pixel-retrieval --root {root}"
        )
    pairs = {}
    for key, path in _dictionary(file).items():
        match = re.fullmatch(r"(\d{1,9})_(\d{1,9})", str(key))
        if not match or not isinstance(path, str):
            raise ValueError(f"{file}: expected Q_I → path of a label, got {str(key)[:60]!r}")
        pairs[int(match[1]), int(match[2])] = path
    return pairs


def _dictionary(path: Path) -> Mapping[str, Any]:
    if path.suffix.lower() != ".json":
        return load_pickled_npy(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no readable JSON ({error})") from error
    if not isinstance(value, Mapping):
        raise ValueError(f"{path}: expected a dictionary, got {type(value).__name__}")
    return value


def _below(root: Path, path: str) -> Path:
    parts = path.replace("\\", "/").split("/")
    if path.startswith(("/", "\\")) or ".." in parts or ":" in path or "\0" in path:
        raise ValueError(f"{root}: a label's path leads out of the folder: {path[:80]!r}")
    return root.joinpath(*parts)


def _polygon(shape: object, where: str) -> np.ndarray:
    if not isinstance(shape, Mapping) or "points" not in shape:
        raise ValueError(f"{where}: expected points, got none")
    kind = shape.get("shape_type", "polygon")
    if kind == "rectangle":
        (x0, y0), (x1, y1) = _points(shape["points"], 2, where)[[0, -1]]
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    if kind != "polygon":
        raise ValueError(f"{where}: expected a polygon or a rectangle, got {str(kind)[:40]!r}")
    return _points(shape["points"], 3, where)


def _points(value: object, least: int, where: str) -> np.ndarray:
    try:
        points = np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: expected points (x, y)") from error
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < least:
        raise ValueError(f"{where}: expected points (n >= {least}, 2), got {points.shape}")
    if not (np.abs(points) < 1e6).all():
        raise ValueError(f"{where}: expected coordinates within a million pixels")
    return points
