"""Writes that are whole or not there, reads that end, names that can be shown.

A write goes to a temporary file next to its target, is synced, and takes the target's place. The
temporary's name says which process writes it, so that what a killed process left behind can be told
from what a living one is writing: :func:`remove_leftovers`.
"""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from spatial_retrieval.leftovers import temporary_name

__all__ = [
    "atomic_writer",
    "cache_dir",
    "printable",
    "read_json",
    "read_regular",
    "sha256_of",
    "write_json",
]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_KINDS = {
    stat.S_IFDIR: "Is a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a binary file that takes its place at ``path`` when the block ends without an error.

    After a crash, a full disk or an exception the old file, if there was one, is still there whole.
    What is no regular file, such as ``/dev/stdout``, is written to as it is.

    Raises:
        OSError: as ``open``; a full disk leaves ``path`` as it was, and the error names ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not (path.is_file() or path.is_dir()):
        with path.open("wb") as file:
            yield file
        return
    temporary = path.parent / temporary_name(path.name)
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; any text in it comes back from reading it."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a file name with bytes that are no UTF-8
        text = json.dumps(value, indent=2).encode()
    with atomic_writer(path) as file:
        file.write(text + b"\n")


def read_json(path: str | os.PathLike[str], kind: type = dict, *, max_bytes: int = 2**30) -> Any:
    """Read a JSON file whose outermost value is a ``kind``.

    Raises:
        ValueError: if it is no JSON, too deep, too long, or another kind of value.
        OSError: if it cannot be read.
    """
    name = printable(os.fsdecode(path))
    try:
        value = json.loads(read_regular(path, max_bytes))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: no readable JSON ({error})") from error
    if not isinstance(value, kind):
        raise ValueError(f"{name}: expected a {kind.__name__}, got {type(value).__name__}")
    return value


def read_regular(
    path: str | os.PathLike[str],
    max_bytes: int,
    *,
    looks_right: Callable[[bytes], bool] = lambda head: True,
) -> bytes:
    """All bytes of a regular file; never waits, and never reads more than the limit.

    Args:
        path: a file or a link to one.
        max_bytes: the limit.
        looks_right: judges the first 4096 bytes; if it says no, only these are read.

    Raises:
        ValueError: if it is a folder, a pipe, a socket or a device, or is too long.
        OSError: if it cannot be read.
    """
    _check_regular(os.stat(path).st_mode)  # opening a device can already do something
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags | getattr(os, "O_CLOEXEC", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        _check_regular(status.st_mode)
        head = file.read(4096)
        if not looks_right(head):
            return head
        if status.st_size > max_bytes:
            raise ValueError(f"{status.st_size} bytes are more than the limit of {max_bytes}")
        data = head + file.read(max_bytes + 1 - len(head))
    if len(data) > max_bytes:
        raise ValueError(f"more than the limit of {max_bytes} bytes")
    return data


def _check_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        found = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise ValueError(f"no regular file: {found}")


def printable(text: str) -> str:
    r"""``text`` on one line that any terminal can show: what can't be shown is escaped.

    Example:
        >>> print(printable("ä\n\udcff"))
        ä\n\udcff
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_dir() -> Path:
    """Folder of caches: ``SPATIAL_RETRIEVAL_CACHE``, or the platform's own (platformdirs).

    Raises:
        ValueError: if the variable starts with "~" and a user whom the machine does not know.
    """
    chosen = os.environ.get("SPATIAL_RETRIEVAL_CACHE")
    if chosen:
        try:
            return Path(chosen).expanduser().absolute()
        except RuntimeError as error:
            raise ValueError(f"SPATIAL_RETRIEVAL_CACHE={printable(chosen)}: {error}") from error
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("spatial-retrieval"))
