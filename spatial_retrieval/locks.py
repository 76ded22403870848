"""One writer at a time: a lock that goes with its process, however that ends."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spatial_retrieval.files import printable

__all__ = ["BusyError", "one_writer"]


class BusyError(OSError):
    """Another process is writing at the same place."""


@contextmanager
def one_writer(path: str | os.PathLike[str], *, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs; it is gone afterwards.

    The system lets the lock go when its process ends, also when that is killed; the file that
    stays then does no harm, and the next holder removes it.

    Args:
        path: of the lock file; its folder is made if it isn't there.
        wait: seconds to wait for another holder.

    Raises:
        BusyError: if another process, or another thread of this one, still holds it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + wait
    while (handle := _acquired(path)) is None:
        if time.monotonic() >= until:
            raise BusyError(
                f"{printable(str(path.parent))}: {_holder(path)} is writing here; "
                "wait until it has ended"
            )
        time.sleep(0.1)
    try:
        os.truncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        _release(handle, path)


def _acquired(path: Path) -> int | None:
    """The locked file; None if another has it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        if _lock(handle) and os.path.samestat(os.fstat(handle), os.stat(path)):
            return handle  # and not a file that its last holder has just removed
    except OSError:
        pass
    os.close(handle)
    return None


def _release(handle: int, path: Path) -> None:
    with suppress(OSError):
        if os.name == "posix":  # elsewhere an open file cannot be removed
            path.unlink()
    os.close(handle)


def _lock(handle: int) -> bool:
    try:
        if os.name == "posix":
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a network folder without locks: better unlocked than never
        return True
    return True


def _holder(path: Path) -> str:
    try:
        return f"process {int(path.read_text(encoding='ascii'))}"
    except (OSError, ValueError):
        return "another process"
