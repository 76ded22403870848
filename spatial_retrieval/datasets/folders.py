"""A folder of photographs, as anyone has one: links, odd names, other formats, locked rooms.

Names are relative, with "/", and keep every byte that the system allows (undecodable ones as
surrogates, PEP 383); :func:`~spatial_retrieval.files.printable` shows them.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spatial_retrieval.decoding.formats import FORMATS, advice, by_suffix, is_supported
from spatial_retrieval.files import printable

__all__ = ["IMAGE_SUFFIXES", "FolderScan", "labels_of", "list_images", "scan_folder"]

IMAGE_SUFFIXES = tuple(s for name, (suffixes, _, _) in FORMATS.items() for s in suffixes)
_SYSTEM = {
    "#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recycle", "@tmp", "__macosx",
    "lost+found", "system volume information",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FolderScan:
    """What :func:`scan_folder` found.

    Attributes:
        folder: where it looked.
        names: photographs, relative names with "/", sorted.
        left_out: format → number of pictures of it that can't be read here.
        system: name → number of system and hidden files and folders that were left out; all
            names that start with a dot count as ".*", those of macOS as "._*".
        unlistable: relative name of a sub-folder → why it could not be listed.
        loops: relative names of linked folders that were there already; not followed.
    """

    folder: Path
    names: tuple[str, ...]
    left_out: dict[str, int]
    system: dict[str, int]
    unlistable: dict[str, str]
    loops: tuple[str, ...]

    def notes(self) -> list[str]:
        """One line about each kind of thing that was left out; empty if nothing was."""
        lines = [
            f"{n} {kind} file{'s were' if n > 1 else ' was'} left out: {advice(kind)}"
            for kind, n in sorted(self.left_out.items())
        ]
        if self.system:
            names = ", ".join(f"{name} ({n})" for name, n in sorted(self.system.items()))
            lines.append(f"system and hidden files and folders were left out: {names}")
        lines += [
            f"the folder {printable(name)} could not be listed ({reason})"
            for name, reason in self.unlistable.items()
        ]
        if self.loops:
            names = ", ".join(map(printable, self.loops[:5]))
            lines.append(f"linked folders that were there already were not followed: {names}")
        return lines

    def hides(self, name: str) -> bool:
        """Whether a photograph may still be there, in a sub-folder that could not be listed."""
        return any(name.startswith(f"{folder}/") for folder in self.unlistable)


@dataclass(slots=True)
class _Found:
    names: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    system: Counter[str] = field(default_factory=Counter)
    unlistable: dict[str, str] = field(default_factory=dict)
    loops: list[str] = field(default_factory=list)


def scan_folder(folder: str | os.PathLike[str]) -> FolderScan:
    """Find all photographs below a folder; nothing is opened.

    Folders come before links to folders: what can be reached both ways has the name without the
    link. A linked folder is followed once, and not if it contains ``folder``.

    Raises:
        ValueError: if the folder isn't there or can't be listed.
    """
    folder = Path(folder)
    shown = printable(str(folder))
    try:
        seen = {_identity(path) for path in (folder, *folder.resolve().parents)}
        os.scandir(folder).close()
    except NotADirectoryError as error:
        raise ValueError(f"{shown}: no such folder") from error
    except OSError as error:
        reason = "no such folder" if not folder.exists() else f"cannot be listed ({error.strerror})"
        raise ValueError(f"{shown}: {reason}") from error
    found, links = _Found(), [""]
    while links:
        name = links.pop(0)
        if name and not _is_new(folder / name, seen):
            found.loops.append(name)
            continue
        for linked in _walk(folder, name, seen, found):
            links.append(linked)
    return FolderScan(
        folder=folder,
        names=tuple(sorted(found.names)),
        left_out=dict(found.left_out),
        system=dict(found.system),
        unlistable=dict(sorted(found.unlistable.items())),
        loops=tuple(found.loops),
    )


def list_images(folder: str | os.PathLike[str]) -> list[str]:
    """Relative names of all photographs below a folder, with "/", sorted.

    Raises:
        ValueError: if the folder isn't there or holds no photograph that can be read here, with
            what it holds instead.
    """
    scan = scan_folder(folder)
    if not scan.names:
        also = "".join(f"; {note}" for note in scan.notes())
        kinds = ", ".join(name for name in FORMATS if is_supported(name))
        raise ValueError(f"{printable(str(folder))}: holds no photograph ({kinds}){also}")
    return list(scan.names)


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


def _walk(root: Path, start: str, seen: set[tuple[int, int]], found: _Found) -> Iterator[str]:
    """Note all that is below ``root/start``; yield the links to folders, which come later."""
    stack = [start]
    while stack:
        inside = stack.pop()
        try:
            with os.scandir(root / inside) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            found.unlistable[inside] = error.strerror or type(error).__name__
            continue
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            if group := _left_out_as(entry.name):
                found.system[group] += 1
            elif not _is_folder(entry):
                _note_file(name, found)
            elif entry.is_symlink():
                yield name
            elif _is_new(root / name, seen):
                stack.append(name)


def _note_file(name: str, found: _Found) -> None:
    kind = by_suffix(os.path.splitext(name)[1])
    if kind is None:
        return
    if is_supported(kind):
        found.names.append(name)
    else:
        found.left_out[kind] += 1


def _left_out_as(name: str) -> str:
    """The group under which a system or hidden name is counted; empty for any other name."""
    if name.startswith("._"):
        return "._*"
    if name == ".thumbnails" or name.lower() in _SYSTEM:
        return name
    return ".*" if name.startswith(".") else ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_new(path: Path, seen: set[tuple[int, int]]) -> bool:
    """Whether a folder was not seen before; it is from now on."""
    try:
        identity = _identity(path)
    except OSError:
        return True  # listing it will say what is wrong
    new = identity not in seen
    seen.add(identity)
    return new


def _identity(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
