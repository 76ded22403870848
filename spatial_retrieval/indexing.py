"""A folder of photographs → an index on disk: incremental, resumable, bad files set aside."""

import io
import json
import logging
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import numpy as np
from tqdm.auto import tqdm

from spatial_retrieval.datasets.folders import list_images
from spatial_retrieval.features.extraction import DEFAULT_SIZE, describe_readable
from spatial_retrieval.files import atomic_writer
from spatial_retrieval.index import DescriptorIndex
from spatial_retrieval.models import RetrievalModel

__all__ = ["IndexReport", "index_folder"]

_SHARD = 64  # photographs between two writes
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class IndexReport:
    """What :func:`index_folder` did.

    Attributes:
        index: the index, as it was saved.
        described: photographs described now; the others were known already.
        failed: name → reason, for files that are no readable photograph.
    """

    index: DescriptorIndex
    described: int
    failed: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of one file: its stamp, and its descriptor or the reason it has none."""

    stamp: str
    row: np.ndarray | None
    reason: str = ""


def index_folder(
    folder: str | Path,
    target: str | Path,
    model: RetrievalModel,
    *,
    model_name: str,
    size: int = DEFAULT_SIZE,
    scales: Sequence[float] = (1.0,),
    progress: bool = True,
) -> IndexReport:
    """Describe every photograph below ``folder`` and save an index to ``target``.

    Only files that are new or changed (size, time) since the last run are described. Work is kept
    every 64 photographs in ``target/.partial``: a killed run goes on where it was, and its result
    is the one of an uninterrupted run.

    Args:
        folder: photographs, in sub-folders too.
        target: folder of the index; made if it isn't there.
        model: describes them.
        model_name: kept in the index, so that a search can load the same model.
        size, scales: see :func:`~spatial_retrieval.features.extraction.describe`.
        progress: show a bar.

    Raises:
        ValueError: if the folder holds no photograph, none could be read, or ``target`` was built
            with another model or image size.
    """
    folder, target = Path(folder), Path(target)
    stamps = {name: _stamp(folder / name) for name in list_images(folder)}
    settings = {
        "model": model_name,
        "model_hash": model.fingerprint(),
        "size": size,
        "scales": list(scales),
    }
    known = _known(target, settings)
    pending = [n for n, s in stamps.items() if n not in known or known[n].stamp != s or not s]
    partial = _partial(target, settings)
    with tqdm(desc="describing", total=len(pending), disable=not progress, unit="image") as bar:
        for chunk in _chunks(pending):
            fresh = _describe(model, folder, chunk, stamps, size, scales)
            _write_shard(partial, fresh)
            known |= fresh
            bar.update(len(chunk))
    index = _index(folder, {name: known[name] for name in stamps}, settings)
    index.save(target)
    rmtree(target / ".partial", ignore_errors=True)
    failed = index.info["failed"]
    return IndexReport(index, sum(name not in failed for name in pending), failed)


def _index(folder: Path, known: dict[str, _Known], settings: dict) -> DescriptorIndex:
    """What is known of every file of a folder, as an index.

    Raises:
        ValueError: if no file could be read.
    """
    kept = {name: item.row for name, item in known.items() if item.row is not None}
    failed = {name: item.reason for name, item in known.items() if item.row is None}
    if not kept:
        raise ValueError(
            f"{folder}: none of {len(known)} files could be read; "
            f"the first: {next(iter(failed.values()))}"
        )
    stamps = {name: item.stamp for name, item in known.items()}
    info = {**settings, "folder": str(folder.resolve()), "failed": failed, "stamps": stamps}
    return DescriptorIndex.build(np.stack(list(kept.values())), list(kept), info)


def _known(target: Path, settings: dict) -> dict[str, _Known]:
    """Everything described earlier: in the finished index, and in the shards of a killed run."""
    known: dict[str, _Known] = {}
    if (target / "manifest.json").exists():
        index = DescriptorIndex.load(target)
        if (found := {key: index.info.get(key) for key in settings}) != settings:
            raise ValueError(
                f"{target}: built with model {found['model']!r} at size {found['size']}, scales "
                f"{found['scales']}; use these, or another folder for the index"
            )
        stamps = index.info["stamps"]
        for name, row in zip(index.names, index.descriptors, strict=True):
            known[name] = _Known(stamps[name], row)
        for name, reason in index.info["failed"].items():
            known[name] = _Known(stamps[name], None, reason)
    for path in sorted(_partial(target, settings).glob("*.npz")):
        known |= _read_shard(path)
    return known


def _partial(target: Path, settings: dict) -> Path:
    key = f"{settings['model_hash'][:16]}-{settings['size']}-" + "_".join(
        f"{scale:g}" for scale in settings["scales"]
    )
    return target / ".partial" / key


def _describe(
    model: RetrievalModel,
    folder: Path,
    names: list[str],
    stamps: dict[str, str],
    size: int,
    scales: Sequence[float],
) -> dict[str, _Known]:
    result = describe_readable(model, [folder / n for n in names], size=size, scales=scales)
    rows = dict(zip(result.kept, result.descriptors, strict=True))
    return {
        name: _Known(stamps[name], rows.get(i), result.failed.get(i, ""))
        for i, name in enumerate(names)
    }


def _write_shard(partial: Path, fresh: dict[str, _Known]) -> None:
    described = {name: item for name, item in fresh.items() if item.row is not None}
    facts = [[name, item.stamp, item.reason] for name, item in fresh.items()]
    rows = np.stack([item.row for item in described.values()]) if described else np.zeros((0, 0))
    count = len(list(partial.glob("*.npz")))
    with atomic_writer(partial / f"{count:06d}.npz") as file:
        np.savez(file, rows=rows, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8))


def _read_shard(path: Path) -> dict[str, _Known]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as shard:
            rows = iter(shard["rows"])
            facts = json.loads(shard["facts"].tobytes())
        return {n: _Known(stamp, None if why else next(rows), why) for n, stamp, why in facts}
    except (OSError, ValueError, KeyError, StopIteration, zipfile.BadZipFile) as error:
        _LOG.warning("%s: unreadable, its photographs are described again (%s)", path, error)
        return {}


def _stamp(path: Path) -> str:
    """Size and time of a file; empty when it cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def _chunks(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), _SHARD):
        yield names[start : start + _SHARD]
