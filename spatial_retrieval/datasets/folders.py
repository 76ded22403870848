"""A folder of photographs, as anyone has one; its sub-folders may say what they show."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

__all__ = ["IMAGE_SUFFIXES", "labels_of", "list_images"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def list_images(folder: str | os.PathLike[str]) -> list[str]:
    """Relative names of all photographs below a folder, with "/", sorted; hidden ones left out.

    Raises:
        ValueError: if the folder isn't there or holds no JPEG, PNG or WebP file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    names = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [
            Path(parent, name).relative_to(folder).as_posix()
            for name in files
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
    if not names:
        raise ValueError(f"{folder}: holds no photograph ({', '.join(IMAGE_SUFFIXES)})")
    return sorted(names)


def labels_of(names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels (N,) int64 of relative names by their first folder, and what the labels are called.

    Raises:
        ValueError: if a name has no folder.

    Example:
        >>> labels_of(["tower/1.jpg", "bridge/a/1.jpg", "bridge/b/1.jpg"])
        (array([1, 0, 0]), ('bridge', 'tower'))
    """
    loose = [name for name in names if "/" not in name]
    if loose:
        raise ValueError(
            f"expected every photograph in a sub-folder that is its label, got {loose[0]!r} "
            f"and {len(loose) - 1} others outside"
        )
    folders = [name.split("/", 1)[0] for name in names]
    label_names, labels = np.unique(folders, return_inverse=True)
    return labels.astype(np.int64), tuple(map(str, label_names))
