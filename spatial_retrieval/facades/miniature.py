"""ROxford in miniature: the official layout and file formats, with drawn houses for Oxford.

The numbers say nothing about Oxford. The set exists so that the whole path, from official files to
a result card, can be run and its rules shown on a machine without the real photographs.

For each house of Twin Façades: its easy views are easy hits, its other views hard ones, and a
corner that shows less than a quarter of it is junk, as in Oxford and Paris. A query is one more
easy view next to a photograph of another house; its box is around the house that is queried.
Labels of PROxford's form say where the house is in each hit.
"""

import os
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

from spatial_retrieval.datasets.revisited import RevisitedImages, open_revisited
from spatial_retrieval.facades.data import TwinFacades, twin_facades
from spatial_retrieval.files import atomic_writer, write_json

__all__ = ["miniature_roxford"]


def miniature_roxford(
    root: str | os.PathLike[str],
    *,
    landmarks: int = 16,
    views: int = 6,
    size: int = 256,
    seed: int = 0,
) -> RevisitedImages:
    """Write the miniature below ``root`` in ROxford's place, and open it.

    Args:
        root: folder that gets ``roxford5k/jpg``, ``roxford5k/gnd_roxford5k.pkl`` and the pixel
            labels ``oxford_pair2labelpath.json``.
        landmarks: houses, at least 4, each with one query.
        views: photographs of each house, at least 3; one of them becomes the query.
        size: of the photographs, pixels.
        seed: another seed is another city.

    Raises:
        ValueError: if there are too few landmarks or views, or another ROxford is there already.
    """
    if landmarks < 4 or views < 3:
        raise ValueError(f"expected at least 4 landmarks and 3 views, got {landmarks}, {views}")
    folder = Path(root) / "roxford5k"
    if (folder / "gnd_roxford5k.pkl").exists() and not (folder / "miniature").exists():
        raise ValueError(f"{folder} holds another data set; choose another root")
    houses = twin_facades("test", landmarks, views, seed, size=size)
    (folder / "jpg").mkdir(parents=True, exist_ok=True)
    (folder / "miniature").touch()
    shown = [np.flatnonzero(houses.labels == k) for k in range(landmarks)]
    queried = [view[houses.difficulty[view] == "E"][0] for view in shown]
    names, gnd, labels = [], [], {}
    for k in range(landmarks):
        hits = [i for i in shown[k] if i != queried[k]]
        lists = {"easy": [], "hard": [], "junk": [len(names) + len(hits)]}
        for i in hits:
            lists["easy" if houses.difficulty[i] == "E" else "hard"].append(len(names))
            labels[f"{k}_{len(names)}"] = _label(Path(root), houses.mask(i), len(names))
            names.append(_save(folder, houses.image(i), f"house_{k:03d}_{len(names):06d}"))
        corner = _corner(houses, hits[0])
        names.append(_save(folder, corner, f"house_{k:03d}_{len(names):06d}"))
        other = queried[(k + 2) % landmarks]  # of another pair of twins
        _save(
            folder, _side_by_side(houses.image(other), houses.image(queried[k])), f"query_{k:03d}"
        )
        gnd.append({"bbx": _box(houses.mask(queried[k]), shift=size), **lists})
    write_json(Path(root) / "oxford_pair2labelpath.json", labels)
    return _opened(root, names, [f"query_{k:03d}" for k in range(landmarks)], gnd)


def _opened(
    root: str | os.PathLike[str], names: list[str], queries: list[str], gnd: list[dict]
) -> RevisitedImages:
    with atomic_writer(Path(root) / "roxford5k" / "gnd_roxford5k.pkl") as file:
        pickle.dump({"imlist": names, "qimlist": queries, "gnd": gnd}, file, protocol=1)
    return open_revisited("roxford5k", root)


def _label(root: Path, mask: np.ndarray, number: int) -> str:
    """Write one labelme file; returns its path below ``root``."""
    import cv2

    outlines, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    shapes = [{"label": "house", "points": o[:, 0].tolist()} for o in outlines if len(o) > 2]
    path = f"labels/{number:06d}.json"
    write_json(root / path, {"shapes": shapes})
    return path


def _save(folder: Path, image: Image.Image, name: str) -> str:
    with atomic_writer(folder / "jpg" / f"{name}.jpg") as file:
        image.save(file, "JPEG", quality=92)
    return name


def _corner(houses: TwinFacades, i: int) -> Image.Image:
    """The photograph cut down to where less than a quarter of the house is seen."""
    x0, y0, x1, y1 = _box(houses.mask(i), shift=0)
    right, bottom = x0 + 0.48 * (x1 - x0), y0 + 0.48 * (y1 - y0)
    return houses.image(i).crop((round(x0), round(y0), round(right), round(bottom)))


def _side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    both = Image.new("RGB", (left.width + right.width, right.height))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    return both


def _box(mask: np.ndarray, shift: int) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = columns[0] + shift, rows[0], columns[-1] + 1 + shift, rows[-1] + 1
    return [float(v) for v in box]
