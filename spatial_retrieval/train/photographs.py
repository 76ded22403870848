"""Photographs on disk as training sets: anyone's folder of folders, and the published sets."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from spatial_retrieval.datasets.folders import labels_of, list_images
from spatial_retrieval.datasets.landmarks import load_gldv2_clean, load_sfm120k
from spatial_retrieval.datasets.revisited import DatasetMissingError
from spatial_retrieval.train.data import PhotoSet

__all__ = ["PUBLISHED_SETS", "photo_folder", "published_photos"]

PUBLISHED_SETS = ("sfm120k", "gldv2")
log = logging.getLogger(__name__)


def photo_folder(
    folder: str | os.PathLike[str],
    *,
    size: int = 480,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> PhotoSet:
    """The photographs of a folder of folders; the first sub-folder is the label.

    Raises:
        ValueError: if there is no photograph, or one lies outside all sub-folders.
    """
    folder = Path(folder)
    names = list_images(folder)
    labels, _ = labels_of(names)
    return PhotoSet([folder / name for name in names], labels, size, augment, names=names)


def published_photos(
    name: str,
    root: str | os.PathLike[str],
    *,
    size: int = 480,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> PhotoSet:
    """A published training set.

    Args:
        name: "sfm120k", whose labels are its 3-D reconstructions; or "gldv2" (GLDv2-clean), of
            which as many photographs are taken as are there.
        root: folder of the set, or the one that holds it.

    Raises:
        DatasetMissingError: if the set, or a photograph of SfM-120k, is not there; it says how to
            get it.
        ValueError: if the name is unknown, or the set is of another form.
    """
    if name not in PUBLISHED_SETS:
        raise ValueError(f"expected a set of {', '.join(PUBLISHED_SETS)}, got {name!r}")
    images = load_sfm120k(root) if name == "sfm120k" else load_gldv2_clean(root, partial=True)
    missing = [path for path in images.paths if not path.is_file()]
    if missing or not len(images):
        what = f"{missing[0]} is not there" if missing else f"no photograph of {name} below {root}"
        full = {"sfm120k": "sfm120k", "gldv2": "gldv2-clean"}[name]
        raise DatasetMissingError(f"{what}; get it with: spatial-retrieval data download {full}")
    log.info("%s: %d photographs of %d labels", name, len(images), len(images.label_names))
    return PhotoSet(list(images.paths), images.labels, size, augment)
