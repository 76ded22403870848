"""The gallery that ships with the library, as code: houses, their twins, and queries to try.

Rendered at the first call (seconds on two cores), found in the cache ever after.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from spatial_retrieval.datasets import scale
from spatial_retrieval.facades.data import TwinFacades, twin_facades
from spatial_retrieval.files import cache_dir
from spatial_retrieval.leftovers import temporary_name

__all__ = ["EmbeddedGallery", "ShowcaseQuery", "embedded_gallery"]

_WORDS = {"E": "easy", "M": "medium", "H": "hard"}


@dataclass(frozen=True, slots=True)
class ShowcaseQuery:
    """A query to try.

    Attributes:
        query: a photograph that is not in the gallery.
        kind: how the house's twin is re-arranged.
        hits: names of the gallery's photographs of this house.
        twins: names of those of its twin, which a good ranking puts lower.
    """

    query: Path
    kind: str
    hits: tuple[str, ...]
    twins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EmbeddedGallery:
    """A folder of photographs, one sub-folder for each house, and queries to try on it."""

    folder: Path
    examples: tuple[ShowcaseQuery, ...]


def embedded_gallery(root: str | os.PathLike[str] | None = None) -> EmbeddedGallery:
    """The demo's own gallery: drawn houses with their twins.

    Each house's last photograph is kept out of the gallery, as a query.

    Args:
        root: folder for the cache, by default that of `spatial_retrieval.files.cache_dir`.

    Raises:
        OSError: if the folder cannot be written.

    Example:
        >>> gallery = embedded_gallery()
        >>> all((gallery.folder / name).is_file() for name in gallery.examples[0].twins)
        True
    """
    landmarks, views, size = scale((20, 8, 448), (4, 4, 128))
    base = Path(root) if root is not None else cache_dir() / "twins"
    data = twin_facades("test", landmarks, views, size=size, root=base)
    home = data.root / "gallery"
    if not home.is_dir():
        _lay_out(data, home, views)
    names = {i: _name(data, i, views) for i in range(len(data))}
    chosen = [k for k in (0, 2, 4, 7, 9, 11) if k < landmarks]
    return EmbeddedGallery(
        folder=home / "photographs",
        examples=tuple(_example(data, home, k, views, names) for k in chosen),
    )


def _example(
    data: TwinFacades, home: Path, landmark: int, views: int, names: dict[int, str]
) -> ShowcaseQuery:
    def gallery(house: int) -> tuple[str, ...]:
        return tuple(names[house * views + v] for v in range(views - 1))

    return ShowcaseQuery(
        query=home / "queries" / names[landmark * views + views - 1],
        kind=str(data.kind[landmark]),
        hits=gallery(landmark),
        twins=gallery(int(data.twin_of[landmark])),
    )


def _name(data: TwinFacades, i: int, views: int) -> str:
    return f"house-{data.labels[i] + 1:02d}/{_WORDS[data.difficulty[i]]}-{i % views + 1}.jpg"


def _lay_out(data: TwinFacades, home: Path, views: int) -> None:
    """Copy the photographs to a folder next to it, which takes its name when it is complete."""
    part = data.root / temporary_name("gallery")
    part.mkdir()
    try:
        for i, path in enumerate(data.paths):
            folder = "queries" if i % views == views - 1 else "photographs"
            target = part / folder / _name(data, i, views)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        part.rename(home)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        if not home.is_dir():  # otherwise another process was first, and its copy is the same
            raise
