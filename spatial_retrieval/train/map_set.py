"""Feature maps of a frozen backbone on disk: shards in half precision, made once, resumable.

A cache is a folder of shards (:mod:`~spatial_retrieval.features.store`) of (n, C, H, W) float16
maps, and ``manifest.json``, which is written first and says whose maps these are. A shard is whole
or not there, so a killed run goes on where it was; a cache of other items or another backbone is
refused rather than mixed.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from spatial_retrieval.features.store import ShardError, ShardStore, open_shard
from spatial_retrieval.files import write_json
from spatial_retrieval.train.data import LabelledSet, check_labels

__all__ = ["CacheError", "MapSet", "cache_maps"]

_VERSION = 2
_BATCH = 8


class CacheError(ValueError):
    """A feature cache that cannot be used; the message says why and what to do."""


class MapSet:
    """A finished cache as a set of (C, H, W) float32 maps, read from disk when asked for.

    Args:
        folder: written by :func:`cache_maps`.

    Raises:
        CacheError: if the cache isn't finished, or a file is missing or damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        manifest = _read_manifest(self.folder)
        self.names: Sequence[str] = manifest["names"]
        self.labels, self.twin_of = check_labels(
            np.asarray(manifest["labels"]), np.asarray(manifest["twin_of"]), len(self.names)
        )
        levels = manifest["difficulty"]
        self.difficulty = None if levels is None else np.asarray(levels)
        self.repeats = False
        self._size = manifest["shard"]
        self._store = ShardStore(self.folder, manifest["about"])
        self._shards = [self._open(i) for i in range(-(-len(self.names) // self._size))]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        shard, row = divmod(key[0], self._size)
        return torch.from_numpy(self._shards[shard][row].astype(np.float32))

    def _open(self, number: int) -> np.ndarray:
        path = self._store.path(number)
        expected = min(self._size, len(self.names) - number * self._size)
        if not path.exists():
            raise CacheError(f"{path}: missing; the cache is unfinished, make it again")
        try:
            maps = open_shard(path).arrays["maps"]
        except (ShardError, KeyError) as error:
            raise CacheError(f"{error}; delete this file and make it again") from error
        if maps.ndim != 4 or len(maps) != expected:
            raise CacheError(f"{path}: expected {expected} maps, got {maps.shape}; delete it")
        return maps


def cache_maps(
    folder: str | os.PathLike[str],
    images: LabelledSet,
    encode: Callable[[Tensor], Tensor],
    about: Mapping[str, Any],
    *,
    shard: int = 64,
    progress: bool = False,
) -> MapSet:
    """Make the maps that aren't there yet, and open the cache.

    Args:
        folder: of the cache; made if needed.
        images: (3, h, w) of one size, asked for one after another, only as needed.
        encode: (B, 3, h, w) → (B, C, H, W), for example a backbone.
        about: what the maps depend on (backbone, layer, size, data, seed), compared with what an
            existing cache says.
        shard: maps in a file.

    Raises:
        CacheError: if the folder holds the maps of something else.
    """
    folder = Path(folder)
    store = ShardStore(folder, _open_folder(folder, images, about, shard)["about"])
    starts = range(0, len(images), shard)
    for number, start in enumerate(tqdm(starts, disable=not progress, unit="shard")):
        if not store.path(number).exists():
            maps = _encoded(images, range(start, min(start + shard, len(images))), encode)
            store.put(number, {"maps": maps})
    return MapSet(folder)


def _open_folder(
    folder: Path, images: LabelledSet, about: Mapping[str, Any], shard: int
) -> dict[str, Any]:
    """Write the manifest, or compare it with the one that is there."""
    labels, twins = check_labels(images.labels, images.twin_of, len(images))
    if not len(images):
        raise ValueError("expected at least one item, got none")
    levels = images.difficulty
    manifest = {
        "version": _VERSION,
        "about": json.loads(json.dumps(about)),
        "shard": shard,
        "labels": labels.tolist(),
        "twin_of": twins.tolist(),
        "difficulty": None if levels is None else [str(level) for level in levels],
        "names": [str(name) for name in images.names],
    }
    if (folder / "manifest.json").exists():
        _check_same(folder, manifest)
    else:
        write_json(folder / "manifest.json", manifest)
    return manifest


def _encoded(images: LabelledSet, which: range, encode: Callable[[Tensor], Tensor]) -> np.ndarray:
    rows = []
    with torch.inference_mode():
        for start in range(which.start, which.stop, _BATCH):
            stop = min(start + _BATCH, which.stop)
            batch = torch.stack([images[i, 0] for i in range(start, stop)])
            rows.append(encode(batch).to("cpu", torch.float16))
    maps = torch.cat(rows)
    if not torch.isfinite(maps).all():
        raise CacheError(
            "expected finite maps that half precision holds (|x| < 65504), got others in items "
            f"{which.start} … {which.stop - 1}"
        )
    return maps.contiguous().numpy()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        found = manifest["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheError(f"{path}: no readable feature cache ({error})") from error
    if found != _VERSION:
        raise CacheError(f"{path}: expected version {_VERSION}, got {found}; make the cache again")
    return manifest


def _check_same(folder: Path, manifest: Mapping[str, Any]) -> None:
    found = _read_manifest(folder)
    differing = [key for key, value in manifest.items() if found.get(key) != value]
    if differing:
        shown = "; ".join(
            f"{key}: expected {manifest[key]}, got {found.get(key)}" if key == "about" else key
            for key in differing
        )
        raise CacheError(f"{folder}: holds maps of something else ({shown}); choose another folder")
