"""``.npy`` files that hold a dictionary, read without calling anything that they name.

``numpy.save`` writes a dictionary as a pickle that calls a few of numpy's functions. Here these
names stand for classes of this module that only record what the file says; arrays of numbers and
text are then made from the recorded bytes, and nothing else is let through.
"""

import io
import os
import pickle
from typing import Any, NoReturn

import numpy as np

from spatial_retrieval.datasets.safe_pickle import (
    MAX_PICKLE_BYTES,
    PLAIN,
    UnsafePickleError,
    read_bounded,
    refuse,
    unpickle,
)

__all__ = ["load_pickled_npy"]

_ALLOWED = PLAIN | {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"}


def load_pickled_npy(
    path: str | os.PathLike[str], *, max_bytes: int = 16 * MAX_PICKLE_BYTES
) -> dict[str, Any]:
    """Read a ``.npy`` file into which ``numpy.save`` put one dictionary.

    Returns:
        the dictionary; a value that is an array of numbers or text comes as numpy's array.

    Raises:
        UnsafePickleError: as :func:`load_plain_pickle`, or if it holds anything but a dictionary.
    """
    name = os.fspath(path)
    file = io.BytesIO(read_bounded(path, max_bytes))
    try:
        version = np.lib.format.read_magic(file)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = reader(file)
    except MemoryError:
        raise
    except Exception as error:  # numpy reads the header by Python's own parser
        raise UnsafePickleError(f"{name}: no readable .npy file") from error
    if shape != () or not dtype.hasobject:
        raise UnsafePickleError(f"{name}: expected one dictionary, got an array {shape} {dtype}")
    array = unpickle(_Arrays, file.read(), _ALLOWED, name)
    items = array.items if isinstance(array, _Array) else None
    if not (isinstance(items, list) and len(items) == 1 and isinstance(items[0], dict)):
        raise UnsafePickleError(f"{name}: expected one dictionary")
    try:
        return {_value(k): _value(v) for k, v in items[0].items()}
    except MemoryError:
        raise
    except Exception as error:  # what numpy makes of a wrong shape or type is not foreseeable
        raise UnsafePickleError(f"{name}: damaged array ({type(error).__name__})") from error


class _Array:
    """Stand-in for ``numpy.ndarray``: remembers what the pickle says about one array."""

    __slots__ = ("dtype", "items", "shape")

    def __init__(self, *_: object) -> None:
        self.items: object = None

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.dtype, fortran, self.items = state
        if fortran and len(self.shape) > 1:
            self.shape = ("fortran", *self.shape)

    @property
    def parts(self) -> tuple[object, ...]:
        """What it holds, for the reader that counts it."""
        return (self.items,)

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
        refuse("state of a scalar")

    def number(self) -> Any:
        return np.frombuffer(self.data, dtype=np.dtype(self.dtype.order + self.dtype.code))[0]


class _Encoded:
    """Stand-in for ``_codecs.encode``, by which old protocols write bytes."""

    __slots__ = ()

    def __new__(cls, text: str, encoding: str) -> bytes:  # type: ignore[misc]
        return text.encode("latin1" if encoding == "latin1" else "ascii")

    def __setstate__(self, state: object) -> NoReturn:
        refuse("state of bytes")


class _NdArray:
    """Stand-in for the class ``numpy.ndarray`` itself, an argument that is ignored."""

    __slots__ = ()

    def __setstate__(self, state: object) -> NoReturn:
        refuse("state of a class")


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
        return _STAND_INS.get((module, name)) or refuse(f"{module}.{name}")

    def persistent_load(self, pid: object) -> NoReturn:
        refuse("a persistent id")


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
