"""Local features are slow to extract and never change, so each image's are kept."""

import hashlib
import logging
import os
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from time import perf_counter, process_time

from PIL import Image

from spatial_retrieval.features.store import ShardStore
from spatial_retrieval.files import cache_dir
from spatial_retrieval.images import Box, ImageSource
from spatial_retrieval.rerank.local_features import LocalFeatures, LocalMethod

__all__ = ["FeatureCache"]

_logger = logging.getLogger(__name__)


class FeatureCache:
    """Local features by image, method and box: the last ones in memory, those of files in a folder.

    A picture that is no file (a visitor's upload) is kept in memory only: it would never be asked
    for again, and isn't ours to keep. ``seconds`` and ``cpu_seconds`` add up what extraction has
    cost so far.

    Args:
        folder: where features of files are kept between runs; None: in memory only.
        capacity: images kept in memory (1000 SIFT points take 0.26 MB).
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, capacity: int = 1000):
        self._folder = None if folder is None else Path(folder)
        self._capacity = capacity
        self._kept: OrderedDict[tuple[object, ...], LocalFeatures] = OrderedDict()
        self._lock = threading.Lock()
        self.seconds = 0.0
        self.cpu_seconds = 0.0

    @classmethod
    def kept(cls) -> "FeatureCache":
        """A cache in the folder that all of the library's searches share."""
        return cls(cache_dir() / "local-features")

    def get(
        self, method: LocalMethod, source: ImageSource, box: Box | None = None
    ) -> LocalFeatures:
        """Features of an image, extracted only if they are not here yet.

        Raises:
            ImageError: if the image cannot be read.
        """
        memory_key = (method.key or method, method.size, _identity(source), box)
        with self._lock:
            if memory_key in self._kept:
                self._kept.move_to_end(memory_key)
                return self._kept[memory_key]
        start, cpu_start = perf_counter(), process_time()
        found = self._from_disk_or_image(method, source, box)
        with self._lock:
            self.seconds += perf_counter() - start
            self.cpu_seconds += process_time() - cpu_start
            self._kept[memory_key] = found
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        return found

    def _from_disk_or_image(
        self, method: LocalMethod, source: ImageSource, box: Box | None
    ) -> LocalFeatures:
        is_file = isinstance(source, str | os.PathLike)
        if self._folder is None or not method.key or not is_file:
            return method.features(source, box)
        store = ShardStore(self._folder, [method.key, method.size])
        key = [list(_identity(source)), None if box is None else list(box)]
        with suppress(OSError, KeyError):  # a folder that can't be read, a shard of another kind
            if kept := store.get(key):
                points, descriptors = kept.arrays["points"], kept.arrays["descriptors"]
                return LocalFeatures(points, descriptors, tuple(kept.facts["size"]))
        found = method.features(source, box)
        arrays = {"points": found.points, "descriptors": found.descriptors}
        try:
            store.put(key, arrays, {"size": list(found.size)})
        except OSError as error:  # a full or read-only disk makes a search slower, not impossible
            _logger.warning("local features are not kept: %s", error)
        return found


def _identity(source: ImageSource) -> tuple[object, ...]:
    if isinstance(source, Image.Image):
        return (source.size, source.mode, hashlib.sha256(source.tobytes()).hexdigest())
    if isinstance(source, bytes):
        return (hashlib.sha256(source).hexdigest(),)
    if isinstance(source, str | os.PathLike):
        path = os.path.abspath(source)
        try:
            state = os.stat(path)
        except OSError:
            return (path,)  # decoding it will say what is wrong
        return (path, state.st_mtime_ns, state.st_size)
    return (source,)  # an open file: the key keeps it, so that no other takes its place
