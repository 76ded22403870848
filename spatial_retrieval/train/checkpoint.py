"""Checkpoints: written whole or not at all, and refused when they belong to something else."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spatial_retrieval.files import atomic_writer

__all__ = ["CheckpointError", "check_state", "load_state", "save_checkpoint", "shapes_of"]

_VERSION = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says why and what to do."""


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them, atomically.

    Raises:
        OSError: for example a full disk; what stood at ``path`` before is still there.
    """
    buffer = io.BytesIO()  # torch's own writer turns a full disk into a RuntimeError
    torch.save({"version": _VERSION, **state}, buffer)
    try:
        with atomic_writer(path) as file:
            file.write(buffer.getbuffer())
    except OSError as error:
        kept = "the one before is intact" if Path(path).exists() else "there is none before it"
        message = f"cannot write the checkpoint {path} ({error.strerror or error}); {kept}"
        raise OSError(error.errno, message) from error


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint on the CPU; nothing in the file can run code.

    Raises:
        CheckpointError: if the file is no checkpoint, or one of another version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged or hostile file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: no readable checkpoint ({reason})") from error
    if not isinstance(state, dict) or state.get("version") != _VERSION:
        found = state.get("version") if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{path}: expected a checkpoint of version {_VERSION}, got {found}")
    return state


def shapes_of(module: nn.Module) -> dict[str, list[int]]:
    """Name → shape of everything in a module's state."""
    return {name: list(value.shape) for name, value in module.state_dict().items()}


def check_state(path: str | os.PathLike[str], what: str, expected: Any, found: Any) -> None:
    """Compare what a checkpoint says about its run with this run's.

    Raises:
        CheckpointError: naming the first differences.
    """
    if expected == found:
        return
    keys = [k for k in (*expected, *found) if expected.get(k) != found.get(k)]
    first = dict.fromkeys(keys)
    parts = [f"{k}: expected {expected.get(k)}, got {found.get(k)}" for k in list(first)[:3]]
    more = f" and {len(first) - 3} more" if len(first) > 3 else ""
    raise CheckpointError(
        f"{path}: the checkpoint is of another {what} ({'; '.join(parts)}{more}); choose another "
        "output folder, or resume=False to start anew"
    )
