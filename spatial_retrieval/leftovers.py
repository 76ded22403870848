"""Temporary files whose names say who writes them, so that a dead writer's can be removed.

A name is ``.<start of the target>.<machine>-<process>-<start time>-<random>.part``. The start time
tells a process from a later one of the same number, as containers have them.
"""

import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

__all__ = ["remove_leftovers", "scratch_folder", "temporary_name"]

_NAME = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}\.part", re.DOTALL)
_OLD = 7 * 24 * 3600  # seconds after which a writer on another machine counts as dead


def temporary_name(target: str) -> str:
    """A new name for a temporary file next to ``target``, at most 255 bytes long."""
    start = os.fsencode(target)[:120].decode("ascii", "ignore")
    process = os.getpid()
    marks = f"{_machine()}-{process}-{_start_time(process)}-{secrets.token_hex(4)}"
    return f".{start}.{marks}.part"


@contextmanager
def scratch_folder(parent: str | os.PathLike[str], name: str = "scratch") -> Iterator[Path]:
    """A folder below ``parent`` that goes with the block, or with :func:`remove_leftovers`."""
    folder = Path(parent) / temporary_name(name)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: str | os.PathLike[str], *, recursive: bool = False) -> int:
    """Remove the temporary files and folders in ``folder`` whose writer is dead.

    Another machine's are removed when they are a week old.

    Args:
        folder: where to look; nothing happens if it isn't there.
        recursive: also in its sub-folders.

    Returns:
        how many were removed.
    """
    removed = 0
    for parent, folders, files in os.walk(folder):
        for name in (*files, *folders):
            match = _NAME.fullmatch(name)
            if match and _is_dead(Path(parent, name), *match.groups()):
                removed += _remove(Path(parent, name))
        folders[:] = [f for f in folders if recursive and not _NAME.fullmatch(f)]
    return removed


def _remove(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
    return not os.path.lexists(path)


def _is_dead(path: Path, machine: str, process: str, started: str) -> bool:
    if machine != _machine() or os.name != "posix":
        try:
            return time.time() - path.stat().st_mtime > _OLD
        except OSError:
            return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it belongs to someone else
        pass
    return _start_time(int(process)) != int(started)


@cache
def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _start_time(process: int) -> int:
    """When a process started, in the kernel's ticks; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19])
    except (OSError, IndexError, ValueError):
        return 0
