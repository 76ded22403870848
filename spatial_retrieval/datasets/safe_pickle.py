"""Pickles from strangers, read as data: nothing in them can be called.

A pickle is a small program. The field's data sets come as pickles that need only its harmless
part: lists, dictionaries, text and numbers. Two locks, each sufficient:

1. every instruction is looked at before the first one runs, and any that is not on a list of
   harmless ones is refused (so is a memo index that would make the reader allocate gigabytes);
2. the unpickler that runs them cannot look up a name: its ``find_class`` always raises.
"""

import io
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any, NoReturn

__all__ = [
    "MAX_BYTES", "PLAIN", "UnsafePickleError", "load_plain_pickle", "read_bounded", "refuse",
    "unpickle",
]  # fmt: skip

MAX_BYTES = 64 * 2**20

_HARMLESS = """
    PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_LIST LIST APPEND APPENDS
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
"""
PLAIN = frozenset(_HARMLESS.split())
_STORES = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
# everything that a damaged or hostile stream of harmless instructions can raise
_BROKEN = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError,
    AttributeError, OverflowError, MemoryError, RecursionError,
)  # fmt: skip


class UnsafePickleError(ValueError):
    """A pickle that is not plain data: it names code, is damaged, or is too large."""


def load_plain_pickle(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> Any:
    """Read a pickle of lists, tuples, dictionaries, text, bytes, numbers, booleans and None.

    Text that Python 2 wrote is read as UTF-8.

    Raises:
        UnsafePickleError: if the file is larger than ``max_bytes``, names any code (nothing of it
            is executed), or is damaged.
        OSError: if it cannot be read.
    """
    data = read_bounded(path, max_bytes)
    return unpickle(_Plain, data, PLAIN, os.fspath(path))


def read_bounded(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """All bytes of a file, which must not be more than ``max_bytes``."""
    with Path(path).open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise UnsafePickleError(f"{os.fspath(path)}: larger than the limit of {max_bytes} bytes")
    return data


def unpickle(
    reader: type[pickle.Unpickler], data: bytes, allowed: frozenset[str], name: str
) -> Any:
    """Run a pickle whose every instruction is ``allowed``, by a ``reader`` that knows its names."""
    try:
        _inspect(data, allowed)
        return reader(io.BytesIO(data), encoding="utf-8").load()
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{name}: {error}") from None
    except _BROKEN as error:
        raise UnsafePickleError(
            f"{name}: no readable pickle, damaged or cut short ({type(error).__name__})"
        ) from error


def _inspect(data: bytes, allowed: frozenset[str]) -> None:
    """Look at every instruction without running one."""
    texts: list[object] = []
    for opcode, argument, position in pickletools.genops(data):
        if opcode.name not in allowed:
            refuse(_named(opcode.name, argument, texts), position)
        if opcode.name in _STORES and argument > len(data):
            raise UnsafePickleError(f"damaged: memo index {argument} at byte {position}")
        if isinstance(argument, str):
            texts = [*texts[-1:], argument]


def _named(opcode: str, argument: object, texts: list[object]) -> str:
    """What an instruction names, for the message."""
    if opcode in ("GLOBAL", "INST"):
        return str(argument)[:80].replace(" ", ".")
    if opcode == "STACK_GLOBAL" and len(texts) == 2:
        return ".".join(str(text)[:40] for text in texts)
    return f"instruction {opcode}"


def refuse(what: str, position: int | None = None) -> NoReturn:
    """Raise the error for a pickle that asks for code."""
    where = "" if position is None else f" at byte {position}"
    raise UnsafePickleError(
        f"refused, the pickle asks for code ({what}{where}) and not only for lists, "
        "dictionaries, text and numbers; nothing was executed"
    )


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        refuse(f"{module}.{name}")

    def persistent_load(self, pid: object) -> NoReturn:
        refuse("a persistent id")
