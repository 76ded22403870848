"""Queries that visitors asked: decoded once, kept for a while, named by a key."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from PIL import Image

from spatial_retrieval.demo import limits
from spatial_retrieval.demo.gallery import Example, Gallery
from spatial_retrieval.demo.results import Results
from spatial_retrieval.demo.sessions import Upload, decode
from spatial_retrieval.demo.store import Store
from spatial_retrieval.images import ImageSource, load_image, resize

__all__ = ["Queries", "Query"]


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A query that is kept.

    Attributes:
        key: names it in later calls.
        image: upright RGB of at most ``limits.MAX_SIDE`` pixels, in which boxes and points are.
        label: what is said about it.
        gallery, name: the photograph it is, when it comes from a gallery.
        example: the example it is, if it is one.
        decode: milliseconds that decoding took.
    """

    key: str
    image: Image.Image
    label: str = ""
    gallery: str | None = None
    name: str | None = None
    example: Example | None = None
    decode: float = 0.0

    def truth(self, name: str) -> str:
        """What an example knows about a photograph: "same", "twin" or nothing."""
        if self.example is None:
            return ""
        return "same" if name in self.example.same else "twin" * (name in self.example.twins)


class Queries:
    """The queries kept now.

    Args:
        gallery_of: a gallery by its key; no key means the main one.
    """

    def __init__(self, gallery_of: Callable[[str | None], Gallery]) -> None:
        self._gallery_of = gallery_of
        self._kept: Store[Query] = Store(limits.MAX_QUERIES)

    def __getitem__(self, key: Any) -> Query:
        """A kept query.

        Raises:
            ValueError: if it is not kept any more.
        """
        found = self._kept.get(key) if isinstance(key, str) else None
        if found is None:
            raise ValueError("choose a query first: an example, or a photograph of yours")
        return found

    def __len__(self) -> int:
        return len(self._kept)

    def open(
        self,
        source: ImageSource | Upload,
        *,
        label: str = "your photograph",
        gallery: str | None = None,
        name: str | None = None,
        example: Example | None = None,
    ) -> Query:
        """Decode a photograph and keep it.

        Raises:
            ImageError: if it is no readable photograph.
        """
        start = perf_counter()
        decoded = (
            decode(source)
            if isinstance(source, Upload)
            else load_image(source, draft=limits.MAX_SIDE)
        )
        image = resize(decoded, limits.MAX_SIDE)
        milliseconds = (perf_counter() - start) * 1000
        about = f"{image.size} {gallery} {name} ".encode()
        key = hashlib.sha256(about + image.tobytes()).hexdigest()[:32]
        query = Query(key, image, label, gallery, name, example, milliseconds)
        self._kept.put(key, query)
        return query

    def open_example(self, number: Any, gallery: str | None = None) -> Query:
        """Keep one of a gallery's examples."""
        home = self._gallery_of(gallery)
        example = home.examples[limits.position(number, "the example", len(home.examples))]
        return self.open(
            example.path, label=example.label, gallery=home.key, name=example.name, example=example
        )

    def open_hit(self, results: Results, rank: Any) -> Query:
        """Keep a hit as the next query."""
        hit = results.hit(rank)
        home = self._gallery_of(results.gallery)
        return self.open(home.folder / hit.name, label=hit.label, gallery=home.key, name=hit.name)
