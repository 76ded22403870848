"""A folder of photographs, as anyone has one."""

import os
from pathlib import Path

__all__ = ["IMAGE_SUFFIXES", "list_images"]

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
