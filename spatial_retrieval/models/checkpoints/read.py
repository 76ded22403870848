"""Open a checkpoint from a stranger: tensors, numbers and text, and nothing that runs.

``torch.load`` with ``weights_only=True`` reads tensors; numpy's array types, which cirtorch's files
need for their learned whitenings, are allowed by name. Anything else in the file is refused.
"""

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["load_checkpoint"]

_DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "uint8", "bool")
_STATES = ("state_dict", "model_state", "model_state_dict", "model")
# everything that a damaged or hostile file can raise on its way through torch's reader
_BROKEN = (
    RuntimeError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError,
    AssertionError, OverflowError, MemoryError, OSError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint: its tensors by their official names, and its metadata.

    Args:
        path: a file of ``torch.save`` or of safetensors.

    Returns:
        The state dict (dense tensors in memory), and ``"meta"`` or the safetensors' own metadata.

    Raises:
        ValueError: if there is no such file, it is damaged, it holds anything but tensors, numpy
            arrays, numbers and text, or a tensor is not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    read = _safetensors if path.suffix == ".safetensors" else _torch
    try:
        content, meta = read(path)
        state = _state(content)
        _check(state, meta)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return state, meta


def _safetensors(path: Path) -> tuple[Any, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, MemoryError) as error:
        raise ValueError(f"no readable safetensors, damaged or cut short ({error})") from error


def _torch(path: Path) -> tuple[Any, dict[str, Any]]:
    try:
        compressed = _is_compressed(path)
        with torch.serialization.safe_globals(_numpy_names()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a file's age; what counts is raised
            if not compressed:
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)|<class '([\w.]+)'>", str(error))
        what = (named[1] or named[2]) if named else "an instruction that is not plain data"
        raise ValueError(
            f"refused, the file asks for {what} and not only for tensors, numpy arrays, numbers "
            "and text; nothing was executed"
        ) from error
    except _BROKEN as error:
        raise ValueError(
            f"no readable checkpoint, damaged or cut short ({type(error).__name__})"
        ) from error
    if compressed:
        raise ValueError("refused, a compressed archive, which torch.save does not write")
    meta = content.get("meta", {}) if isinstance(content, Mapping) else {}
    return content, dict(meta) if isinstance(meta, Mapping) else {}


def _is_compressed(path: Path) -> bool:
    """Whether it is a zip that could grow beyond its size when read."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())


def _numpy_names() -> list[Any]:
    """What rebuilds numpy's arrays and scalars, under the names of numpy 1 and 2."""
    rebuild, scalar = (value.__reduce__()[0] for value in (np.empty(0), np.float64(0)))
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    functions = [(rebuild, f"{m}._reconstruct") for m in modules]
    functions += [(scalar, f"{m}.scalar") for m in modules]
    types = [(np.ndarray, "numpy.ndarray"), (np.dtype, "numpy.dtype")]
    return [*functions, *types, *{type(np.dtype(name)) for name in _DTYPES}]


def _state(content: Any) -> dict[str, Tensor]:
    """The mapping of tensors in a file, wherever its project keeps it."""
    if isinstance(content, Mapping):
        for name in _STATES:
            if isinstance(content.get(name), Mapping):
                content = content[name]
                break
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"expected a state dict, got {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"expected tensors by name, got {type(value).__name__} at {name!r}")
    wrapped = all(name.startswith("module.") for name in content)  # saved by DataParallel
    return {name.removeprefix("module.") if wrapped else name: v for name, v in content.items()}


def _check(state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    for name, value in state.items():
        if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise ValueError(f"expected dense tensors, got {name} as {value.layout}")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"expected {value.numel()} numbers in {name}, the file has fewer")
        if value.is_complex() or not bool(torch.isfinite(value).all()):
            raise ValueError(f"expected finite real numbers, {name} holds others")
    for name, value in _arrays(meta, "meta"):
        if value.dtype == object or not bool(np.isfinite(value).all()):
            raise ValueError(f"expected finite real numbers, {name} holds others")


def _arrays(value: Any, name: str) -> list[tuple[str, np.ndarray]]:
    """All arrays in nested mappings, with their names."""
    if isinstance(value, np.ndarray):
        return [(name, value)]
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in _arrays(inner, f"{name}.{key}")]
    return []
