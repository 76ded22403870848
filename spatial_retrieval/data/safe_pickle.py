"""Pickles from strangers, read as data: nothing in them can be called.

A pickle is a small program. The field's data sets come as pickles that need only its harmless
part: lists, dictionaries, text and numbers. Two locks, each sufficient:

1. every instruction is looked at before the first one runs, and any that is not on a list of
   harmless ones is refused (so is a memo index that would make the reader allocate gigabytes);
2. the unpickler that runs them cannot look up a name: its ``find_class`` always raises.

``.npy`` files that hold a dictionary need numpy's few names. They get stand-ins of this module
that only record what the file says; numpy's own functions are not called by the file.
"""

import io
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

__all__ = ["UnsafePickleError", "load_plain_pickle", "load_pickled_npy"]

MAX_BYTES = 64 * 2**20

_HARMLESS = """
    PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_LIST LIST APPEND APPENDS
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
"""
_PLAIN = frozenset(_HARMLESS.split())
_ARRAYS = _PLAIN | {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"}
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
    data = _read(path, max_bytes)
    return _unpickle(_Plain, data, _PLAIN, os.fspath(path))


def load_pickled_npy(
    path: str | os.PathLike[str], *, max_bytes: int = 16 * MAX_BYTES
) -> dict[str, Any]:
    """Read a ``.npy`` file into which ``numpy.save`` put one dictionary.

    Returns:
        the dictionary; a value that is an array of numbers or text comes as numpy's array.

    Raises:
        UnsafePickleError: as :func:`load_plain_pickle`, or if it holds anything but a dictionary.
    """
    name = os.fspath(path)
    file = io.BytesIO(_read(path, max_bytes))
    try:
        version = np.lib.format.read_magic(file)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = reader(file)
    except (ValueError, KeyError) as error:
        raise UnsafePickleError(f"{name}: no readable .npy file") from error
    if shape != () or not dtype.hasobject:
        raise UnsafePickleError(f"{name}: expected one dictionary, got an array {shape} {dtype}")
    array = _unpickle(_Arrays, file.read(), _ARRAYS, name)
    items = array.items if isinstance(array, _Array) else None
    if not (isinstance(items, list) and len(items) == 1 and isinstance(items[0], dict)):
        raise UnsafePickleError(f"{name}: expected one dictionary")
    try:
        return {_value(k): _value(v) for k, v in items[0].items()}
    except _BROKEN as error:
        raise UnsafePickleError(f"{name}: damaged array ({type(error).__name__})") from error


def _read(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    with Path(path).open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise UnsafePickleError(f"{os.fspath(path)}: larger than the limit of {max_bytes} bytes")
    return data


def _unpickle(
    reader: type[pickle.Unpickler], data: bytes, allowed: frozenset[str], name: str
) -> Any:
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
            _refuse(_named(opcode.name, argument, texts), position)
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


def _refuse(what: str, position: int | None = None) -> NoReturn:
    where = "" if position is None else f" at byte {position}"
    raise UnsafePickleError(
        f"refused, the pickle asks for code ({what}{where}) and not only for lists, "
        "dictionaries, text and numbers; nothing was executed"
    )


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        _refuse(f"{module}.{name}")

    def persistent_load(self, pid: object) -> NoReturn:
        _refuse("a persistent id")


class _Array:
    """Stand-in for ``numpy.ndarray``: remembers what the pickle says about one array."""

    __slots__ = ("dtype", "items", "shape")

    def __init__(self, *_: object) -> None:
        self.items: object = None

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.dtype, fortran, self.items = state
        if fortran and len(self.shape) > 1:
            self.shape = ("fortran", *self.shape)

    def numbers(self) -> np.ndarray:
        if self.dtype.code == "O":
            return _object_array(self.items)
        dtype = np.dtype(self.dtype.order + self.dtype.code)
        flat = np.frombuffer(self.items, dtype=dtype)
        if self.shape[:1] == ("fortran",):
            return flat.reshape(self.shape[:0:-1]).T
        return flat.reshape(self.shape)


class _Dtype:
    """Stand-in for ``numpy.dtype``: kind and size such as ``i8``, and the byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: str, *_: object) -> None:
        if not (code == "O" or code == "O8" or (code[:1] in "biufSU" and code[1:].isdigit())):
            raise ValueError("expected an array of numbers or text")
        self.code, self.order = code[:1] if code[:1] == "O" else code, "="

    def __setstate__(self, state: tuple) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise ValueError("expected a byte order")
        self.order = state[1]


class _Scalar:
    """Stand-in for numpy's scalars, such as ``numpy.int64(3)``."""

    __slots__ = ("data", "dtype")

    def __init__(self, dtype: _Dtype, data: bytes) -> None:
        self.dtype, self.data = dtype, data

    def __setstate__(self, state: object) -> NoReturn:
        _refuse("state of a scalar")

    def number(self) -> Any:
        return np.frombuffer(self.data, dtype=np.dtype(self.dtype.order + self.dtype.code))[0]


class _Encoded:
    """Stand-in for ``_codecs.encode``, by which old protocols write bytes."""

    __slots__ = ()

    def __new__(cls, text: str, encoding: str) -> bytes:  # type: ignore[misc]
        return text.encode("latin1" if encoding == "latin1" else "ascii")

    def __setstate__(self, state: object) -> NoReturn:
        _refuse("state of bytes")


class _NdArray:
    """Stand-in for the class ``numpy.ndarray`` itself, an argument that is ignored."""

    __slots__ = ()

    def __setstate__(self, state: object) -> NoReturn:
        _refuse("state of a class")


_STAND_INS: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy._core.multiarray", "scalar"): _Scalar,
    ("numpy", "ndarray"): _NdArray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encoded,
}


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        return _STAND_INS.get((module, name)) or _refuse(f"{module}.{name}")

    def persistent_load(self, pid: object) -> NoReturn:
        _refuse("a persistent id")


def _value(value: object) -> Any:
    if isinstance(value, _Array):
        return value.numbers()
    if isinstance(value, _Scalar):
        return value.number()
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    if value is None or isinstance(value, str | bytes | bool | int | float):
        return value
    raise TypeError("expected arrays, lists, text or numbers")


def _object_array(items: object) -> list[Any]:
    if not isinstance(items, list):
        raise TypeError("expected a list of objects")
    return [_value(item) for item in items]
