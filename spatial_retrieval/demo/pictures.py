"""Pictures as the page shows them: JPEG, small, made once."""

import secrets
from pathlib import Path
from shutil import rmtree
from typing import Any

from spatial_retrieval.demo.gallery import ExampleQuery, Gallery, frame, jpeg, tile
from spatial_retrieval.demo.queries import KeptQuery
from spatial_retrieval.demo.store import Store
from spatial_retrieval.images import resize

__all__ = ["Pictures"]

_KEPT = 1500  # some 20 kB each
_PAIRS = 200


class Pictures:
    """Pictures of photographs and queries.

    Args:
        folder: for those that the browser fetches as files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: Store[bytes] = Store(_KEPT)
        self._pairs: Store[Path] = Store(
            _PAIRS, seconds=900, dropped=lambda pair: rmtree(pair, ignore_errors=True)
        )

    def photograph(self, gallery: Gallery, name: str, side: int = 320) -> bytes:
        """A gallery's photograph; an empty tile where it is gone."""
        key = f"{gallery.key}/{side}/{name}"
        return self._kept.get_or(key, lambda: jpeg(tile(gallery.folder / name, side)))

    def query(self, query: KeptQuery, side: int = 720) -> bytes:
        """A kept query."""
        key = f"{query.gallery}/query/{side}/{query.key}"
        return self._kept.get_or(key, lambda: jpeg(resize(query.image, side), 85))

    def example(self, gallery: Gallery, example: ExampleQuery, side: int = 160) -> bytes:
        """An example; an empty tile where it is gone."""
        key = f"{gallery.key}/example/{side}/{example.path}"
        return self._kept.get_or(key, lambda: jpeg(tile(example.path, side)))

    def pair(
        self, query: KeptQuery, gallery: Gallery, name: str, side: int = 640
    ) -> tuple[Path, Path]:
        """Files of a query and a photograph on canvases of one size, each as large as it fits."""
        pictures = frame(query.image, tile(gallery.folder / name, side), side)
        key = secrets.token_hex(16)
        folder = self._folder / key
        folder.mkdir()
        for file, picture in zip(("a.jpg", "b.jpg"), pictures, strict=True):
            (folder / file).write_bytes(jpeg(picture))
        self._pairs.put(f"{gallery.key}/{key}", folder)
        return folder / "a.jpg", folder / "b.jpg"

    def forget(self, gallery: str) -> None:
        """Forget all pictures of a gallery's photographs and of queries that are among them."""

        def of_gallery(key: str, value: Any) -> bool:
            return key.startswith(f"{gallery}/")

        self._kept.drop_where(of_gallery)
        self._pairs.drop_where(of_gallery)

    def sweep(self) -> None:
        """Delete what waits too long to be fetched."""
        self._pairs.sweep()
