"""A folder of photographs, as anyone has one."""

import os
from collections.abc import Sequence
from pathlib import Path

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


def labels_of(names: Sequence[str]) -> list[str]:
    """Each photograph's label: the first folder of its relative name.

    Raises:
        ValueError: if a name has no folder.

    Example:
        >>> labels_of(["tower/1.jpg", "bridge/a/1.jpg", "bridge/b/2.jpg"])
        ['tower', 'bridge', 'bridge']
    """
    loose = [name for name in names if "/" not in name]
    if loose:
        raise ValueError(
            f"expected every photograph in a sub-folder that is its label, got {loose[0]!r} "
            f"and {len(loose) - 1} others outside"
        )
    return [name.split("/", 1)[0] for name in names]
