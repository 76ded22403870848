"""A folder of photographs → an index on disk: incremental, resumable, bad files set aside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from spatial_retrieval.datasets.folders import FolderScan, scan_folder
from spatial_retrieval.features.described import DescribedFiles, Known, content_stamp, row_blocks
from spatial_retrieval.features.extraction import DEFAULT_SIZE
from spatial_retrieval.features.store import Blocks
from spatial_retrieval.images import DECODING_VERSION
from spatial_retrieval.index import DescriptorIndex
from spatial_retrieval.index.disk import (
    Contents,
    add_segment,
    commit,
    positions_after,
    read_index,
    selected,
)
from spatial_retrieval.leftovers import remove_leftovers
from spatial_retrieval.locks import one_writer
from spatial_retrieval.models import RetrievalModel

__all__ = ["IndexOptions", "IndexReport", "index_folder"]

_CHUNK = 256  # photographs between two writes
_SETTINGS = ("model_hash", "size", "scales", "decoding")  # what a descriptor depends on


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How a folder is indexed.

    Attributes:
        size, scales: see :func:`~spatial_retrieval.features.extraction.describe`.
        part: (i, n): describe the i-th of n parts only, 0 ≤ i < n; the parts can run at once on
            machines that share the index's folder, and a run without parts joins them.
        replace: forget an index of another folder or of other settings that is there.
        only_join: describe nothing: all parts must have been described.
    """

    size: int = DEFAULT_SIZE
    scales: Sequence[float] = (1.0,)
    part: tuple[int, int] = (0, 1)
    replace: bool = False
    only_join: bool = False

    def __post_init__(self) -> None:
        i, n = self.part
        if not 0 <= i < n:
            raise ValueError(f"expected a part i/n with 0 ≤ i < n, got {i}/{n}")


@dataclass(frozen=True, slots=True, eq=False)
class IndexReport:
    """What :func:`index_folder` did.

    Attributes:
        index: the index, as it was saved; None after describing one part of several.
        described: photographs described now; the others were known already.
        failed: name → reason, for files that are no readable photograph.
        notes: one line about each kind of thing in the folder that was left out.
    """

    index: DescriptorIndex | None
    described: int
    failed: dict[str, str]
    notes: Sequence[str] = ()


def index_folder(
    folder: str | Path,
    target: str | Path,
    model: RetrievalModel,
    *,
    model_name: str,
    options: IndexOptions = IndexOptions(),
    progress: bool = True,
) -> IndexReport:
    """Describe every photograph below ``folder`` and save an index to ``target``.

    Only files that are new or changed (size, time, a sample of the content) since the last run are
    described, and those that could not be read for a reason that may pass. Work is kept every 256
    photographs in ``target/.partial``: a killed run goes on where it was, and its result is the
    one of an uninterrupted run.

    Args:
        folder: photographs, in sub-folders too.
        target: folder of the index; made if it isn't there.
        model: describes them.
        model_name: kept in the index, so that a search can load the same model; of a folder the
            absolute path is kept.
        options: size, scales, part, replace.
        progress: show a bar.

    Raises:
        ValueError: if the folder holds no photograph, none could be read, or ``target`` was built
            of another folder, or with other settings.
        BusyError: if another process is updating this index.
    """
    target = Path(target)
    info = _info(Path(folder), model, model_name, options)
    settings = {key: info[key] for key in _SETTINGS}
    if options.part != (0, 1):
        plan = _plan(Path(folder), target, info, options)
        return _describe(plan, DescribedFiles(target / ".partial", settings), model, progress)[1]
    with one_writer(target / ".writer"):
        remove_leftovers(target, recursive=True)
        plan = _plan(Path(folder), target, info, options)
        fresh = DescribedFiles(target / ".partial", settings)
        found, report = _describe(plan, fresh, model, progress)
        updated = _updated(plan, target, found)
        if updated is not plan.old:
            commit(target, updated)
        rmtree(target / ".partial", ignore_errors=True)
    failed = {name: why for name, (why, _) in updated.set_aside.items()}
    return replace(report, index=DescriptorIndex.load(target), failed=failed)


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What is to be done.

    Attributes:
        scan: what is in the folder now.
        info: what the index will say of itself.
        options: how.
        old: the index as it is, if it stays.
        stamps: of all photographs, by name.
        pending: names of those to describe.
    """

    scan: FolderScan
    info: dict[str, Any]
    options: IndexOptions
    old: Contents | None
    stamps: dict[str, str]
    pending: list[str]

    def stays(self, name: str) -> bool:
        """Whether what the old index knows of a file still holds."""
        return name in self.stamps or self.scan.hides(name)


def _info(
    folder: Path, model: RetrievalModel, model_name: str, options: IndexOptions
) -> dict[str, Any]:
    path = Path(model_name)
    return {
        "model": str(path.resolve()) if path.is_dir() else model_name,
        "model_hash": model.fingerprint(),
        "size": options.size,
        "scales": [float(scale) for scale in options.scales],
        "decoding": DECODING_VERSION,
        "folder": str(folder.resolve()),
    }


def _plan(folder: Path, target: Path, info: dict[str, Any], options: IndexOptions) -> _Plan:
    old = None
    if (target / "manifest.json").exists() and not options.replace:
        old = read_index(target)
        _check_same(target, old.info, info)
    scan = scan_folder(folder)
    stamps = {name: content_stamp(folder / name) for name in scan.names}
    known = {}
    if old is not None:
        known = dict(zip(old.names, old.stamps, strict=True))
        known |= {name: stamp for name, (_, stamp) in old.set_aside.items()}
    pending = [name for name, stamp in stamps.items() if not stamp or known.get(name) != stamp]
    return _Plan(scan, info, options, old, stamps, pending)


def _check_same(target: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to mix descriptors of different making, or photographs of different folders."""
    if any(old.get(key) != new[key] for key in ("model_hash", "size", "scales")):
        raise ValueError(
            f"{target}: built with model {old.get('model')!r} at size {old.get('size')}, scales "
            f"{old.get('scales')}; use these, --replace, or another folder for the index"
        )
    if old.get("decoding") != new["decoding"]:
        raise ValueError(
            f"{target}: its photographs were decoded by another version of this library, "
            "so new ones would not compare; make it again with --replace"
        )
    if old.get("folder") != new["folder"]:
        raise ValueError(
            f"{target}: is the index of {old.get('folder')}, not of {new['folder']}; "
            "use --replace, or another folder for the index"
        )


def _describe(
    plan: _Plan, fresh: DescribedFiles, model: RetrievalModel, progress: bool
) -> tuple[dict[str, Known], IndexReport]:
    """What is known of the pending files, after describing this part's chunks of them."""
    i, n = plan.options.part
    starts = range(0, len(plan.pending), _CHUNK)
    chunks = [plan.pending[start : start + _CHUNK] for start in starts][i::n]
    found: dict[str, Known] = {}
    described = 0
    with tqdm(total=sum(map(len, chunks)), disable=not progress, unit="image") as bar:
        for chunk in chunks:
            stamps = {name: plan.stamps[name] for name in chunk}
            known = {name: fresh.find(name, stamp) for name, stamp in stamps.items()}
            if any(each is None for each in known.values()):
                if plan.options.only_join:
                    raise ValueError(f"{chunk[0]} and others are in no part; index them first")
                size, scales = plan.options.size, plan.options.scales
                known = fresh.describe(model, plan.scan.folder, stamps, size=size, scales=scales)
                described += sum(each.row is not None for each in known.values())
            found |= known
            bar.update(len(chunk))
    failed = {name: each.reason for name, each in found.items() if each.row is None}
    return found, IndexReport(None, described, failed, plan.scan.notes())


def _updated(plan: _Plan, target: Path, found: Mapping[str, Known]) -> Contents:
    """The old index without what is gone or changed, with what was found.

    Raises:
        ValueError: if no file could be read.
    """
    old, pending = plan.old, set(plan.pending)
    stays = [name not in pending and plan.stays(name) for name in old.names] if old else []
    aside = {n: [each.reason, each.stamp] for n, each in found.items() if each.row is None}
    if old is not None:
        still = {n: w for n, w in old.set_aside.items() if n not in pending and plan.stays(n)}
        aside = still | aside
    new = {name: each for name, each in found.items() if each.row is not None}
    if not new and not any(stays):
        raise ValueError(
            f"{plan.scan.folder}: none of {len(plan.stamps)} files could be read; "
            f"the first: {next(iter(aside.values()))[0]}"
        )
    if old is not None and not new and all(stays) and aside == old.set_aside:
        return old
    segments = list(old.segments) if old else []
    if new:
        dim = len(next(iter(new.values())).row)
        rows = Blocks(np.float32, (len(new), dim), row_blocks(new.values()))
        segments.append(add_segment(target, rows, list(new), [plan.stamps[n] for n in new]))
    return selected(segments, positions_after(old, stays, len(new)), plan.info, aside)
