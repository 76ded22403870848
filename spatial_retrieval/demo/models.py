"""Models loaded when they are first asked for, and the index of each gallery under each model."""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree

import numpy as np

from spatial_retrieval.demo.gallery import Gallery
from spatial_retrieval.demo.limits import MAX_SESSIONS
from spatial_retrieval.demo.store import Store
from spatial_retrieval.features.extraction import DEFAULT_SIZE, describe_readable
from spatial_retrieval.files import cache_dir
from spatial_retrieval.index import DescriptorIndex
from spatial_retrieval.indexing import index_folder
from spatial_retrieval.models import RetrievalModel, embedded_models, load_model
from spatial_retrieval.rerank import FeatureCache
from spatial_retrieval.searcher import Searcher, open_index

__all__ = ["PREFERRED", "TITLES", "Shelf", "default_model"]

PREFERRED = ("lite0-spatial", "lite0-gem")
TITLES = {
    "lite0-gem": "GeM",
    "lite0-spatial": "Spatial context",
    "lite0-gem-v1": "GeM, version 1",
    "lite0-spatial-v1": "Spatial context, version 1",
}

DescribedRows = list[tuple[str, np.ndarray]]  # names with their descriptors (D,)

_FEATURES = 500  # photographs whose SIFT features are kept, a quarter of a megabyte each
_LOG = logging.getLogger(__name__)


def default_model() -> str:
    """The embedded model that the demo opens with."""
    there = embedded_models()
    return next((name for name in PREFERRED if name in there), there[0])


class Shelf:
    """Models by name, and searchers by gallery and model; each made once.

    Args:
        names: models that may be asked for: embedded names, folders or Hub ids.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(dict.fromkeys(names))
        self._models: dict[str, RetrievalModel] = {}
        self._searchers: dict[tuple[str, str], Searcher] = {}
        self._features = FeatureCache(capacity=_FEATURES)  # one for all models of the main gallery
        self._private: Store[Searcher] = Store(2 * MAX_SESSIONS)
        self._lock = threading.RLock()

    def title(self, name: str) -> str:
        """The model's name for people."""
        return TITLES.get(name, Path(name).name)

    def model(self, name: str) -> RetrievalModel:
        """Load a model, or return it."""
        with self._lock:
            if name not in self._models:
                self._models[name] = load_model(name).requires_grad_(False)
            return self._models[name]

    def searcher(self, gallery: Gallery, name: str) -> Searcher:
        """The gallery's index under a model; described now if it wasn't before."""
        if gallery.key.startswith("own-"):
            key = f"{gallery.key}/{name}"
            return self._private.get_or(
                key, lambda: self._in_memory(gallery, name, self.rows(gallery, name))
            )
        with self._lock:
            key = gallery.key, name
            if key not in self._searchers:
                self._searchers[key] = self._on_disk(gallery, name)
            return self._searchers[key]

    def keep(self, gallery: Gallery, name: str, rows: DescribedRows) -> None:
        """Keep a visitor's gallery that has been described."""
        self._private.put(f"{gallery.key}/{name}", self._in_memory(gallery, name, rows))

    def rows(self, gallery: Gallery, name: str, few: slice = slice(None)) -> DescribedRows:
        """Descriptors of a gallery's photographs, or of a few of them; unreadable ones left out."""
        names = gallery.names[few]
        result = describe_readable(self.model(name), [gallery.folder / n for n in names])
        return [(names[i], row) for i, row in zip(result.kept, result.descriptors, strict=True)]

    def forget(self, gallery: str) -> None:
        """Forget a visitor's gallery."""
        self._private.drop_where(lambda key, value: key.startswith(f"{gallery}/"))

    def _on_disk(self, gallery: Gallery, name: str) -> Searcher:
        model = self.model(name)
        if gallery.index is not None:
            info = DescriptorIndex.load(gallery.index).info
            if info["model_hash"] == model.fingerprint():
                return open_index(gallery.index, model=name)
        home = cache_dir() / "demo" / f"{gallery.key}-{model.fingerprint()[:12]}"
        index = _kept_index(gallery, home, model, name)
        return Searcher(index, model, DEFAULT_SIZE, folder=gallery.folder, features=self._features)

    def _in_memory(self, gallery: Gallery, name: str, rows: DescribedRows) -> Searcher:
        if not rows:
            raise ValueError("none of these photographs can be read any more")
        names, descriptors = zip(*rows, strict=True)
        info = {"model_hash": self.model(name).fingerprint()}
        index = DescriptorIndex.build(np.stack(descriptors), names, info)
        features = FeatureCache(capacity=2 * len(names))  # goes with the gallery
        return Searcher(
            index, self.model(name), DEFAULT_SIZE, folder=gallery.folder, features=features
        )


def _kept_index(gallery: Gallery, home: Path, model: RetrievalModel, name: str) -> DescriptorIndex:
    """The gallery's index in the cache, brought up to date; made anew if it can't be trusted."""
    try:
        known = (home / "manifest.json").exists()  # then it takes no time worth a bar
        index = index_folder(gallery.folder, home, model, model_name=name, progress=not known).index
        if _agrees(index, gallery.folder, model):
            return index
        reason = "made by another version of this library"
    except ValueError as error:
        reason = str(error)
    if home.exists():
        _LOG.warning("%s: describing the photographs again (%s)", home, reason)
        rmtree(home)
    return index_folder(gallery.folder, home, model, model_name=name).index


def _agrees(index: DescriptorIndex, folder: Path, model: RetrievalModel) -> bool:
    """Does the model still describe the first photograph as the index has it?"""
    row = describe_readable(model, [folder / index.names[0]]).descriptors
    return len(row) == 1 and float(row[0] @ index.descriptors[0]) > 0.99
