"""Arrays on disk in shards: one file each, written whole, checked, memory-mapped, resumable.

A shard is a safetensors file: eight bytes of header length, a JSON header, the arrays
(https://github.com/huggingface/safetensors#format). Its metadata hold the sha256 of all the rest
and facts as JSON. Shards of one kind are kept under their settings and found by their key, so that
work that was done is never done again, and nothing made with other settings is mistaken for it.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spatial_retrieval.files import atomic_writer

__all__ = ["Blocks", "Shard", "ShardError", "ShardStore", "open_shard", "write_shard"]

_LOG = logging.getLogger(__name__)
_DTYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64, "I64": np.int64, "U8": np.uint8}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_UNSIGNED = "0" * 64  # stands where the digest comes
_LONGEST_HEADER = 100_000_000  # bytes, as safetensors allows
_CHUNK = 1 << 24


class ShardError(ValueError):
    """A shard that is missing or damaged; the message names the file."""


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """An array that is never in memory as a whole: its rows come block by block."""

    dtype: type
    shape: tuple[int, ...]
    blocks: Iterable[np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """An open shard.

    Attributes:
        path: its file.
        arrays: by name, read-only, memory-mapped: only what is touched is read.
        facts: JSON-able.
        digest: sha256 that the file claims; :meth:`verify` compares.
    """

    path: Path
    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]
    digest: str

    def verify(self) -> "Shard":
        """Read every byte and compare with the digest.

        Raises:
            ShardError: if a byte has changed.
        """
        with open(self.path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length).replace(self.digest.encode(), _UNSIGNED.encode(), 1)
            found = hashlib.sha256(header)
            while chunk := file.read(_CHUNK):
                found.update(chunk)
        if found.hexdigest() != self.digest:
            raise ShardError(f"{self.path}: damaged (its sha256 differs)")
        return self


def write_shard(
    path: str | os.PathLike[str],
    arrays: Mapping[str, "np.ndarray | Blocks"],
    facts: Mapping[str, Any] | None = None,
) -> str:
    """Write a shard atomically, and return its digest.

    Raises:
        ValueError: if a type can't be kept, or blocks don't add up to their shape.
    """
    parts = {name: _blocks(array) for name, array in arrays.items()}
    order = sorted(parts, key=lambda name: (-np.dtype(parts[name].dtype).itemsize, name))
    header = _header({name: parts[name] for name in order}, facts or {})
    digest = hashlib.sha256(header)
    with atomic_writer(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in order:
            written = 0
            for block in parts[name].blocks:
                data = np.ascontiguousarray(block, parts[name].dtype).reshape(-1).view(np.uint8)
                digest.update(data.data)
                written += file.write(data.data)
            if written != _size(parts[name]):
                raise ValueError(f"{name}: expected {_size(parts[name])} bytes, got {written}")
        file.seek(8)
        file.write(header.replace(_UNSIGNED.encode(), digest.hexdigest().encode(), 1))
    return digest.hexdigest()


def open_shard(path: str | os.PathLike[str]) -> Shard:
    """Open a shard: its header is read and checked, its arrays are mapped.

    Raises:
        ShardError: if it is missing, cut off, or no shard.
    """
    path = Path(path)
    try:
        raw = np.memmap(path, np.uint8, "r").view(np.ndarray)
        length = int.from_bytes(raw[:8].tobytes(), "little")
        if length > min(_LONGEST_HEADER, len(raw) - 8):
            raise ValueError("cut off")
        header = json.loads(raw[8 : 8 + length].tobytes())
        about = header.pop("__metadata__")
        data = raw[8 + length :]
        arrays = {name: _mapped(data, entry) for name, entry in header.items()}
        if sum(array.nbytes for array in arrays.values()) != len(data):
            raise ValueError("cut off")
        return Shard(path, arrays, json.loads(about["facts"]), str(about["sha256"]))
    except FileNotFoundError as error:
        raise ShardError(f"{path}: missing") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ShardError(f"{path}: damaged ({error})") from error


class ShardStore:
    """Shards by key, in a folder of their settings.

    Args:
        folder: shared by any number of settings.
        settings: JSON-able; what the arrays depend on next to their key.

    Example:
        >>> store = ShardStore("/tmp/maps", {"layer": "stage5"})
        >>> _ = store.put("a.jpg", {"map": np.zeros((2, 3), np.float16)})
        >>> store.get("a.jpg").arrays["map"].shape
        (2, 3)
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Any) -> None:
        self.folder = Path(folder) / _digest(settings)[:16]

    def path(self, key: Any) -> Path:
        """Where the shard of a JSON-able key is."""
        return self.folder / f"{_digest(key)[:32]}.safetensors"

    def get(self, key: Any) -> Shard | None:
        """The shard of a key with every byte checked; None if there is none or it is damaged."""
        return self._checked(self.path(key))

    def put(
        self, key: Any, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any] | None = None
    ) -> Shard:
        """Keep arrays under a key, in place of what was there."""
        write_shard(self.path(key), arrays, facts)
        return open_shard(self.path(key))

    def __iter__(self) -> Iterator[Shard]:
        """All shards that are whole; of the others the log tells."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if shard := self._checked(path):
                yield shard

    @staticmethod
    def _checked(path: Path) -> Shard | None:
        with suppress(FileNotFoundError):
            path.stat()
            try:
                return open_shard(path).verify()
            except (ShardError, OSError) as error:
                _LOG.warning("%s; made again", error)
        return None


def _blocks(array: "np.ndarray | Blocks") -> Blocks:
    if isinstance(array, Blocks):
        return array
    if array.dtype not in _NAMES:
        raise ValueError(f"expected a type among {', '.join(map(str, _NAMES))}, got {array.dtype}")
    return Blocks(array.dtype.type, array.shape, (array,))


def _size(part: Blocks) -> int:
    return int(np.prod(part.shape, dtype=np.int64)) * np.dtype(part.dtype).itemsize


def _header(parts: Mapping[str, Blocks], facts: Mapping[str, Any]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"sha256": _UNSIGNED, "facts": json.dumps(facts)}}
    start = 0
    for name, part in parts.items():
        stop = start + _size(part)
        kind = _NAMES[np.dtype(part.dtype)]
        header[name] = {"dtype": kind, "shape": list(part.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    return text + b" " * (-len(text) % 8)


def _mapped(data: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    start, stop = entry["data_offsets"]
    shape = tuple(int(side) for side in entry["shape"])
    if not 0 <= start <= stop <= len(data) or min(shape, default=0) < 0:
        raise ValueError("cut off")
    return data[start:stop].view(_DTYPES[entry["dtype"]]).reshape(shape)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
