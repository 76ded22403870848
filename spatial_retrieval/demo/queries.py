"""Queries that visitors asked: decoded once, kept for a while, named by a key."""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from PIL import Image

from spatial_retrieval.demo import limits
from spatial_retrieval.demo.gallery import ExampleQuery, Gallery
from spatial_retrieval.demo.line import Line
from spatial_retrieval.demo.results import Results
from spatial_retrieval.demo.sessions import decode_upload
from spatial_retrieval.demo.store import Store
from spatial_retrieval.demo.uploads import Upload
from spatial_retrieval.demo.visitor import current_visitor
from spatial_retrieval.images import ImageError, load_image, resize

__all__ = ["KeptQuery", "Queries"]

_WHY = {
    "time": "this query was deleted an hour after its last use; choose one again",
    "room": "this query was deleted to make room for others; choose one again",
    "deleted": "this query is deleted with the photographs it was one of; choose another",
}


@dataclass(frozen=True, slots=True, eq=False)
class KeptQuery:
    """A query that is kept.

    Attributes:
        key: names it in later calls.
        image: upright RGB of at most ``limits.LONGEST_SIDE`` pixels, in which boxes and points are.
        label: what is said about it.
        gallery, name: the photograph it is, when it comes from a gallery.
        example: the example it is, if it is one.
        decode: milliseconds that decoding took.
    """

    key: str
    image: Image.Image = field(default_factory=lambda: Image.new("RGB", (1, 1)))
    label: str = ""
    gallery: str | None = None
    name: str | None = None
    example: ExampleQuery | None = None
    decode: float = 0.0

    def name_in(self, gallery: Gallery) -> str | None:
        """Its name, if it is a photograph of this gallery."""
        return self.name if self.gallery == gallery.key else None

    def truth(self, name: str) -> str:
        """What an example knows about a photograph: "same", "twin" or nothing."""
        if self.example is None:
            return ""
        return "same" if name in self.example.same else "twin" * (name in self.example.twins)


class Queries:
    """The queries kept now; see :class:`~spatial_retrieval.demo.store.Store` for how many.

    Args:
        gallery_of: a gallery by its key; no key means the main one.
        line: decoding waits its turn here.
    """

    def __init__(self, gallery_of: Callable[[str | None], Gallery], line: Line) -> None:
        self._gallery_of = gallery_of
        self._line = line
        self._salt = secrets.token_bytes(16)  # nobody can tell a key from a picture
        self._kept: Store[KeptQuery] = Store(
            limits.MAX_QUERIES, each=limits.QUERIES_EACH, seconds=limits.SESSION_SECONDS
        )

    def __getitem__(self, key: Any) -> KeptQuery:
        """A kept query.

        Raises:
            ValueError: if it is not kept any more; the message says why.
        """
        found = self._kept.get(key) if isinstance(key, str) else None
        if found is None:
            why = self._kept.why(key) if isinstance(key, str) else None
            raise ValueError(
                _WHY.get(why or "", "choose a query first: an example, or a photograph of yours")
            )
        return found

    def __len__(self) -> int:
        return len(self._kept)

    def open(self, source: Upload | Image.Image, *, label: str = "your photograph") -> KeptQuery:
        """Decode a photograph and keep it.

        Raises:
            ImageError: if it is no readable photograph.
        """
        return self._keep(
            lambda: decode_upload(source) if isinstance(source, Upload) else load_image(source),
            KeptQuery("", label=label),
        )

    def open_example(self, number: Any, gallery: str | None = None) -> KeptQuery:
        """Keep one of a gallery's examples."""
        home = self._gallery_of(gallery)
        example = home.examples[limits.position(number, "the example", len(home.examples))]
        known = KeptQuery(
            "", label=example.label, gallery=home.key, name=example.name, example=example
        )
        return self._keep(lambda: _own(example.path, example.label), known)

    def open_hit(self, results: Results, rank: Any) -> KeptQuery:
        """Keep a hit as the next query."""
        hit = results.hit(rank)
        home = self._gallery_of(results.gallery)
        known = KeptQuery("", label=hit.label, gallery=home.key, name=hit.name)
        return self._keep(lambda: _own(home.folder / hit.name, hit.label), known)

    def forget(self, gallery: str) -> None:
        """Forget all queries that are photographs of a gallery."""
        self._kept.drop_where(lambda key, query: query.gallery == gallery)

    def sweep(self) -> None:
        """Forget what was not used for too long."""
        self._kept.sweep()

    def _keep(self, decoded: Callable[[], Image.Image], known: KeptQuery) -> KeptQuery:
        with self._line.turn():
            start = perf_counter()
            image = resize(decoded(), limits.LONGEST_SIDE)
            milliseconds = (perf_counter() - start) * 1000
        about = f"{current_visitor()} {image.size} {known.gallery} {known.name} ".encode()
        key = hashlib.sha256(self._salt + about + image.tobytes()).hexdigest()[:32]
        query = replace(known, key=key, image=image, decode=milliseconds)
        self._kept.put(key, query)
        return query


def _own(path: Path, label: str) -> Image.Image:
    """A photograph of a gallery; where it lies is nobody's business."""
    try:
        return load_image(path, draft=limits.LONGEST_SIDE)
    except ImageError as error:
        raise ImageError(f"{label}: this photograph cannot be read any more") from error
