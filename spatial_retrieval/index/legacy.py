"""Indices of the first format: one .npy of rows, one .json of names, all in memory."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spatial_retrieval.features.store import ShardError
from spatial_retrieval.files import sha256_of
from spatial_retrieval.index.rows import Rows

__all__ = ["read_format_1"]


def read_format_1(
    folder: Path, manifest: Mapping[str, Any]
) -> tuple[Rows, list[str], list[str], dict[str, Any], dict[str, list[str]]]:
    """Rows, names, stamps, info and what was set aside; saving it again writes today's format.

    Raises:
        ShardError: if a file is missing or a byte has changed.
    """
    rows = np.load(_checked(folder, manifest, "descriptors"), allow_pickle=False)
    names = json.loads(_checked(folder, manifest, "names").read_text(encoding="utf-8"))
    info = dict(manifest["info"])
    stamps, failed = info.pop("stamps", {}), info.pop("failed", {})
    aside = {name: [reason, stamps.get(name, "")] for name, reason in failed.items()}
    return Rows([rows]), names, [stamps.get(name, "") for name in names], info, aside


def _checked(folder: Path, manifest: Mapping[str, Any], key: str) -> Path:
    entry = manifest["files"][key]
    path = folder / Path(entry["file"]).name
    try:
        if sha256_of(path) == entry["sha256"]:
            return path
    except OSError as error:
        raise ShardError(f"{path}: {key} is missing") from error
    raise ShardError(f"{path}: sha256 differs")
