"""Pickles from strangers, read as data: nothing in them can be called.

A pickle is a small program. The field's data sets come as pickles that need only its harmless
part: lists, dictionaries, text and numbers. Every instruction is looked at before the first one
runs, and any that is not on a list of harmless ones is refused. So is what harmless instructions
can still do: a memo index that makes the reader allocate gigabytes, tuples so deep that hashing one
exhausts the stack, and lists that hold one another so often that walking through them never ends.
"""

import io
import os
import pickle
import pickletools
from collections.abc import Iterable
from itertools import chain
from typing import Any, NoReturn

from spatial_retrieval.files import printable, read_regular

__all__ = [
    "MAX_PICKLE_BYTES",
    "PLAIN",
    "UnsafePickleError",
    "load_plain_pickle",
    "read_bounded",
    "refuse",
    "unpickle",
]

MAX_PICKLE_BYTES = 64 * 2**20
MAX_DEPTH = 100  # of containers within containers
MAX_ITEMS = 10_000_000  # of all containers, each counted as often as it is reached

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
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
)


class UnsafePickleError(ValueError):
    """A pickle that is not plain data: it names code, is damaged, or is too large."""


def load_plain_pickle(path: str | os.PathLike[str], *, max_bytes: int = MAX_PICKLE_BYTES) -> Any:
    """Read a pickle of lists, tuples, dictionaries, text, bytes, numbers, booleans and None.

    Text that Python 2 wrote is read as UTF-8.

    Raises:
        UnsafePickleError: if the file is larger than ``max_bytes``, names any code (nothing of it
            is executed), or is damaged.
        OSError: if it cannot be read.
    """
    data = read_bounded(path, max_bytes)
    return unpickle(pickle.Unpickler, data, PLAIN, printable(os.fsdecode(path)))


def read_bounded(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """All bytes of a regular file, which must not be more than ``max_bytes``."""
    try:
        return read_regular(path, max_bytes)
    except ValueError as error:
        name = printable(os.fsdecode(path))
        raise UnsafePickleError(f"{name}: {error}") from error


def unpickle(
    reader: type[pickle.Unpickler], data: bytes, allowed: frozenset[str], name: str
) -> Any:
    """Run a pickle whose every instruction is ``allowed``, by a ``reader`` that knows its names."""
    try:
        _inspect(data, allowed)
        value = reader(io.BytesIO(data), encoding="utf-8").load()
        _measure(value, {})
        return value
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{name}: {error}") from None
    except _BROKEN as error:
        raise UnsafePickleError(
            f"{name}: no readable pickle, damaged or cut short ({type(error).__name__})"
        ) from error


def _inspect(data: bytes, allowed: frozenset[str]) -> None:
    """Look at every instruction without running one."""
    texts: list[object] = []
    depths = _Depths()
    for opcode, argument, position in pickletools.genops(data):
        if opcode.name not in allowed:
            refuse(_named(opcode.name, argument, texts), position)
        if opcode.name in _STORES and argument > len(data):
            raise UnsafePickleError(f"damaged: memo index {argument} at byte {position}")
        if isinstance(argument, str):
            texts = [*texts[-1:], argument]
        depths.run(opcode, argument)


class _Depths:
    """The reader's stack, on which each value is only how many tuples deep it is.

    A dictionary hashes its keys by a recursion that nothing stops, and only tuples are hashed
    through what they hold.
    """

    def __init__(self) -> None:
        self.stack: list[int] = []
        self.marks: list[int] = []
        self.memo: dict[int, int] = {}

    def run(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name = opcode.name
        if name == "MARK":
            self.marks.append(len(self.stack))
        elif name in _STORES or name == "MEMOIZE":
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        elif name == "POP" and self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self._replace(opcode)

    def _replace(self, opcode: pickletools.OpcodeInfo) -> None:
        """Take what an instruction takes, put what it puts."""
        before, after = opcode.stack_before, opcode.stack_after
        if pickletools.markobject in before:
            start = self.marks.pop() - before.index(pickletools.markobject)
        else:
            start = len(self.stack) - len(before)
        if start < 0:
            raise IndexError("the stack is empty")
        taken = self.stack[start:]
        del self.stack[start:]
        depth = 1 + max(taken, default=0) if "TUPLE" in opcode.name else 0
        if depth > MAX_DEPTH:
            raise UnsafePickleError(f"tuples more than {MAX_DEPTH} deep")
        self.stack += [depth] * len(after)


def _measure(value: object, known: dict[int, tuple[int, int]], depth: int = 0) -> tuple[int, int]:
    """(items, height) of what a value unfolds to; each container is walked through once.

    Raises:
        UnsafePickleError: if that is too many, or too deep.
    """
    parts = _parts(value)
    if parts is None:
        return 1, 0
    if id(value) not in known:
        if depth > MAX_DEPTH:
            raise UnsafePickleError(f"containers more than {MAX_DEPTH} deep")
        known[id(value)] = MAX_ITEMS + 1, 0  # what holds itself never ends
        items, height = 1, 0
        for part in parts:
            inner = _measure(part, known, depth + 1)
            items, height = items + inner[0], max(height, 1 + inner[1])
        if items > MAX_ITEMS or height > MAX_DEPTH:
            raise UnsafePickleError(
                f"more than {MAX_ITEMS} items, or {MAX_DEPTH} containers within one another, "
                "when shared ones are counted each time"
            )
        known[id(value)] = items, height
    return known[id(value)]


def _parts(value: object) -> Iterable[object] | None:
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, dict):
        return chain(value, value.values())
    return getattr(value, "parts", None)  # of a reader's own containers


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
