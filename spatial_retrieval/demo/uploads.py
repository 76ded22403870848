"""Files that visitors uploaded: whose they are, how many may wait, and the one way to read them."""

import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatial_retrieval.demo import limits
from spatial_retrieval.demo.visitor import current_visitor

__all__ = ["Upload", "Uploads"]

_REMEMBERED = 500  # uploads that were used: a page may still ask for their picture
_REFUSED = "this is no photograph that you uploaded; choose it again"


@dataclass(frozen=True, slots=True)
class Upload:
    """One photograph that came from a visitor.

    Attributes:
        name: that it came with.
        source: what the file holds, or what reads it.
    """

    name: str
    source: bytes | Callable[[], bytes]

    def read(self) -> bytes:
        """What the file holds, up to a little more than the limit of one file."""
        return self.source if isinstance(self.source, bytes) else self.source()


class Uploads:
    """Uploads that wait to be used.

    Args:
        folder: where they are written, each in a folder of its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._visitors: dict[str, set[str]] = {}  # path → who uploaded this file
        self._used: OrderedDict[tuple[str, str], None] = OrderedDict()  # (path, visitor)
        self._lock = threading.Lock()

    def note(self, paths: Iterable[str]) -> None:
        """These files were written for the current visitor."""
        with self._lock:
            for path in paths:
                self._visitors.setdefault(path, set()).add(current_visitor())

    def owned(self, path: Any) -> bool:
        """Whether this is an upload of the current visitor."""
        with self._lock:
            return isinstance(path, str) and current_visitor() in self._visitors.get(path, ())

    def find(self, payload: Any) -> Upload:
        """An upload of the current visitor.

        Args:
            payload: of gradio: a mapping with ``path`` and ``orig_name``.

        Raises:
            ValueError: if it is anything else, whatever there may be at that path.
        """
        path = payload.get("path") if isinstance(payload, dict) else None
        if not self.owned(path):
            raise ValueError(_REFUSED)
        name = str(payload.get("orig_name") or "the photograph")[:100]
        return Upload(name, lambda: self._bytes(path))

    def shown(self, path: str) -> bytes | None:
        """An upload of the current visitor for the page that shows it; None: it was used already.

        Raises:
            ValueError: if it is anything else.
        """
        try:
            return self.find({"path": path}).read()
        except ValueError:
            with self._lock:
                if (path, current_visitor()) in self._used:
                    return None
            raise

    def discard(self, payloads: Iterable[Any]) -> None:
        """Delete uploads of the current visitor; a file that another one sent too stays theirs."""
        for payload in payloads:
            path = payload.get("path") if isinstance(payload, dict) else None
            if self.owned(path):
                self._leave(path, current_visitor())

    def waiting(self, visitor: str | None = None) -> int:
        """Bytes of a visitor's uploads; None: of all files in the folder, broken ones too."""
        if visitor is None:
            return sum(_size(path) for path in self._files())
        with self._lock:
            own = [path for path, names in self._visitors.items() if visitor in names]
        return sum(_size(Path(path)) for path in own)

    def remove_broken(self) -> None:
        """Delete what is left of uploads that did not end well, while none is on its way."""
        for path in self.folder.iterdir():
            if path.is_file():
                path.unlink(missing_ok=True)

    def sweep(self, seconds: float = limits.UPLOAD_SECONDS) -> None:
        """Delete what has waited too long, and what is left of broken uploads."""
        before = time.time() - seconds
        for path in list(self._files()):
            with suppress(OSError):
                if path.lstat().st_mtime < before:
                    self._unlink(path)
        with self._lock:
            for path in [path for path in self._visitors if not os.path.lexists(path)]:
                del self._visitors[path]

    def _leave(self, path: str, visitor: str) -> None:
        with self._lock:
            names = self._visitors[path]
            names.discard(visitor)
            self._used[path, visitor] = None
            while len(self._used) > _REMEMBERED:
                self._used.popitem(last=False)
            if names:
                return
            del self._visitors[path]
        with suppress(OSError):
            self._unlink(Path(path))

    def _unlink(self, path: Path) -> None:
        path.unlink()
        if path.parent != self.folder:
            path.parent.rmdir()

    def _bytes(self, path: str) -> bytes:
        try:
            if not Path(path).resolve(strict=True).is_relative_to(self.folder):
                raise ValueError(_REFUSED)
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
            handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise ValueError(_REFUSED)
                return file.read(limits.MAX_UPLOAD_BYTES + 1)
        except OSError as error:
            raise ValueError(_REFUSED) from error

    def _files(self) -> Iterable[Path]:
        return (path for path in self.folder.rglob("*") if path.is_symlink() or path.is_file())


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
