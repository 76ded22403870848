"""The demo's private folder: uploads and visitors' galleries, gone with the process."""

import os
import shutil
import tempfile
import time
import weakref
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["Workspace"]

_PREFIX = "spatial-retrieval-demo-"
_YOUNG = 60  # seconds in which a folder may still be without its lock


class Workspace:
    """A new folder that only this user can read; removed when the process ends.

    What a process left that could not do so (killed, power cut) is removed by the next one: each
    folder holds a lock that the system frees with its process.

    Args:
        root: where to make it; by default the system's folder for temporary files.

    Attributes:
        galleries: folder of visitors' photographs.
        uploads: folder where gradio puts uploads, and nothing else does.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        root = Path(root or tempfile.gettempdir()).resolve()
        _remove_dead(root)
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        self._lock = FileLock(self.folder / "lock")
        self._lock.acquire()
        self.galleries = self.folder / "galleries"
        self.uploads = self.folder / "uploads"
        self.galleries.mkdir()
        self.uploads.mkdir()
        self._end = weakref.finalize(self, _remove, self.folder, self._lock)

    def close(self) -> None:
        """Remove the folder now."""
        self._end()


def _remove_dead(root: Path) -> None:
    for folder in root.glob(f"{_PREFIX}*"):
        with suppress(OSError, Timeout):
            status = folder.lstat()
            if hasattr(os, "getuid") and status.st_uid != os.getuid():
                continue
            if not (folder / "lock").exists() and time.time() - status.st_mtime < _YOUNG:
                continue
            lock = FileLock(folder / "lock")
            with lock.acquire(blocking=False):
                shutil.rmtree(folder, ignore_errors=True)


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    shutil.rmtree(folder, ignore_errors=True)  # what could not go while it was locked
