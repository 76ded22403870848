"""``DescriptorIndex``: add, search, reconstruct, save, load. Exact search by FAISS."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from spatial_retrieval.files import atomic_writer, sha256_of, write_json
from spatial_retrieval.ranking import Ranking

__all__ = ["DescriptorIndex"]

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class DescriptorIndex:
    """A database of unit descriptors with their names.

    Attributes:
        descriptors: (M, D) float32 unit rows.
        names: M names, each once.
        info: what else was saved with it (model, image size, folder …), JSON-able.

    Build with :meth:`build` or :meth:`load`, not directly.
    """

    descriptors: np.ndarray  # (M, D)
    names: tuple[str, ...]
    info: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        descriptors: np.ndarray,
        names: Sequence[str],
        info: Mapping[str, Any] | None = None,
    ) -> "DescriptorIndex":
        """Index descriptors.

        Args:
            descriptors: (M, D) finite, unit rows, M ≥ 1.
            names: M different names.
            info: JSON-able facts to keep with them.

        Raises:
            ValueError: if shapes don't fit, a row is not of unit length, or a name comes twice.

        Example:
            >>> index = DescriptorIndex.build(np.eye(3, dtype=np.float32), ["a", "b", "c"])
            >>> index.search(np.eye(3, dtype=np.float32)[:1], k=2).names(index.names)
            [['a', 'b']]
        """
        rows = np.ascontiguousarray(descriptors, dtype=np.float32)
        if rows.ndim != 2 or not len(rows) or len(rows) != len(names):
            raise ValueError(
                f"expected descriptors (M, D) for M ≥ 1 names, got {rows.shape} for {len(names)}"
            )
        lengths = np.linalg.norm(rows, axis=1)
        if not np.allclose(lengths, 1, atol=1e-3):
            raise ValueError(
                f"expected unit rows, got lengths {lengths.min():.4g} … {lengths.max():.4g}; "
                "divide each row by its norm"
            )
        if len(set(names)) < len(names):
            raise ValueError("expected each name once, got a name twice")
        return cls(rows, tuple(names), dict(info or {}))

    def __len__(self) -> int:
        return len(self.names)

    def search(self, queries: np.ndarray, k: int = 10) -> Ranking:
        """Find the k database rows of largest inner product; equal scores in database order.

        Args:
            queries: (Q, D).
            k: at least 1; cut to M.

        Raises:
            ValueError: if D does not fit or ``k`` < 1.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.descriptors.shape[1]:
            raise ValueError(
                f"expected queries (Q, {self.descriptors.shape[1]}), got {queries.shape}; "
                "was the index built with another model?"
            )
        if k < 1:
            raise ValueError(f"expected k of at least 1, got {k}")
        scores, ids = self._faiss.search(queries, min(k, len(self)))
        order = np.lexsort((ids, -scores), axis=1)
        return Ranking(np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1))

    def reconstruct(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        """The descriptors at some positions, (…,) → (…, D)."""
        return self.descriptors[np.asarray(ids)]

    def save(self, folder: str | Path) -> None:
        """Write the index; its manifest, with the sha256 of each file, takes its place last.

        Until then an index that was in ``folder`` before stays complete and loadable.
        """
        folder = Path(folder)
        names = json.dumps(list(self.names), ensure_ascii=False).encode()
        array = io.BytesIO()
        np.save(array, self.descriptors, allow_pickle=False)
        files = {
            "descriptors": _write_addressed(folder, "descriptors", ".npy", array.getbuffer()),
            "names": _write_addressed(folder, "names", ".json", names),
        }
        manifest = {
            "format": _FORMAT,
            "count": len(self),
            "dim": self.descriptors.shape[1],
            "files": files,
            "info": dict(self.info),
        }
        write_json(folder / "manifest.json", manifest)
        kept = {entry["file"] for entry in files.values()}
        for old in [*folder.glob("descriptors-*.npy"), *folder.glob("names-*.json")]:
            if old.name not in kept:
                old.unlink()

    @classmethod
    def load(cls, folder: str | Path) -> "DescriptorIndex":
        """Read an index and check every byte of it against its manifest.

        Raises:
            ValueError: if there is no index, a file is missing, or a byte has changed.
        """
        folder = Path(folder)
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ValueError(f"{folder}: no index here (manifest.json is missing)") from error
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder}: damaged index (manifest.json: {error})") from error
        if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
            raise ValueError(
                f"{folder}: this index is of another version; delete this folder and index again"
            )
        rows = np.load(_checked(folder, manifest, "descriptors"), allow_pickle=False)
        names = json.loads(_checked(folder, manifest, "names").read_text(encoding="utf-8"))
        return cls.build(rows, names, manifest.get("info"))

    @cached_property
    def _faiss(self) -> Any:
        import faiss

        index = faiss.IndexFlatIP(self.descriptors.shape[1])
        index.add(self.descriptors)
        return index


def _write_addressed(folder: Path, stem: str, suffix: str, data: bytes | memoryview) -> dict:
    """Write under a name that holds the content's hash, so that old and new never mix."""
    import hashlib

    digest = hashlib.sha256(data).hexdigest()
    name = f"{stem}-{digest[:16]}{suffix}"
    with atomic_writer(folder / name) as file:
        file.write(data)
    return {"file": name, "sha256": digest}


def _checked(folder: Path, manifest: Mapping[str, Any], key: str) -> Path:
    try:
        entry = manifest["files"][key]
        path = folder / Path(entry["file"]).name
        found = sha256_of(path)
    except (KeyError, TypeError, OSError) as error:
        raise ValueError(
            f"{folder}: damaged index ({key} is missing); delete this folder and index again"
        ) from error
    if found != entry["sha256"]:
        raise ValueError(
            f"{path}: damaged index (sha256 differs); delete this folder and index again"
        )
    return path
