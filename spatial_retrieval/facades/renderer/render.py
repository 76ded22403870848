"""One landmark to disk: photographs as JPEG, masks as PNG, and what is known about them as JSON."""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from spatial_retrieval.facades.renderer.canvas import canvas_size, draw
from spatial_retrieval.facades.renderer.design import KINDS, Design, design_pair
from spatial_retrieval.facades.renderer.pen import Canvas
from spatial_retrieval.facades.renderer.scene import View, photograph_house
from spatial_retrieval.files import write_json
from spatial_retrieval.leftovers import temporary_name

__all__ = ["SPLITS", "VERSION", "Job", "kind_of", "landmark_design", "render_landmark", "view_of"]

VERSION = 1  # of the look; another look is another cache
SPLITS = ("train", "val", "test")
_NEIGHBOURS = 32  # designs that stand next to landmarks and are none
_VIEW, _NEIGHBOUR = 1, 2  # what a seed is for


@dataclass(frozen=True, slots=True)
class Job:
    """What to render; every file is a function of these values and of the landmark's number."""

    folder: str
    split: str
    seed: int
    size: int
    views: int
    difficulty: str  # of view v: the letter at v modulo its length


def kind_of(landmark: int) -> str:
    """How the pair that a landmark belongs to was re-arranged."""
    return KINDS[(landmark // 2) % len(KINDS)]


@lru_cache(maxsize=8)
def landmark_design(split: str, seed: int, landmark: int) -> Design:
    """The design of a landmark: 2k is the original of pair k, 2k + 1 its twin."""
    entropy = (VERSION, SPLITS.index(split), seed, landmark // 2)
    return design_pair(entropy, kind_of(landmark), split)[landmark % 2]


def view_of(job: Job, landmark: int, view: int) -> View:
    """Photograph one view of a landmark."""
    entropy = [VERSION, SPLITS.index(job.split), job.seed, landmark, view, _VIEW]
    rng = np.random.default_rng(np.random.SeedSequence(entropy))
    house = draw(landmark_design(job.split, job.seed, landmark))
    difficulty = job.difficulty[view % len(job.difficulty)]

    def neighbour(rng: np.random.Generator) -> Canvas:
        return _neighbour(job.split, int(rng.integers(_NEIGHBOURS)))

    return photograph_house(rng, house, neighbour, difficulty, job.size)


def render_landmark(job: Job, landmark: int) -> None:
    """Write all views of a landmark; its JSON comes last and marks it as complete."""
    folder, name = Path(job.folder), f"{landmark:05d}"
    for kind in ("images", "masks"):
        (folder / kind / name).mkdir(parents=True, exist_ok=True)
    views = []
    for v in range(job.views):
        view = view_of(job, landmark, v)
        difficulty = job.difficulty[v % len(job.difficulty)]
        stem = f"{name}/{v:03d}_{difficulty}"
        jpeg = [cv2.IMWRITE_JPEG_QUALITY, view.quality]
        _write(folder / "images" / f"{stem}.jpg", view.rgb[..., ::-1], jpeg)
        _write(folder / "masks" / f"{stem}.png", view.mask, [cv2.IMWRITE_PNG_BILEVEL, 1])
        views.append(
            {"file": stem, "difficulty": difficulty, "homography": view.homography.tolist()}
        )
    size = canvas_size(landmark_design(job.split, job.seed, landmark).grid)
    record: dict[str, Any] = {"landmark": landmark, "kind": kind_of(landmark), "canvas": size}
    write_json(folder / "landmarks" / f"{name}.json", record | {"views": views})


@lru_cache(maxsize=_NEIGHBOURS)
def _neighbour(split: str, k: int) -> Canvas:
    """A house that is no landmark of any seed: its entropy is longer than a landmark's."""
    entropy = (VERSION, SPLITS.index(split), _NEIGHBOUR, k, 0, 0)
    return draw.__wrapped__(design_pair(entropy, KINDS[k % len(KINDS)], split)[0])


def _write(path: Path, image: np.ndarray, options: list[int]) -> None:
    """Encode in memory and write with Python, so that a full disk is an OSError."""
    done, data = cv2.imencode(path.suffix, image, options)
    if not done:
        raise OSError(f"{path}: OpenCV could not encode the image")
    temporary = path.with_name(temporary_name(path.name))
    temporary.write_bytes(data.tobytes())
    os.replace(temporary, path)
