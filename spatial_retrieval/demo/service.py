"""What the demo can do, without gradio: every value that comes in is checked here."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from PIL import Image

from spatial_retrieval.demo import limits
from spatial_retrieval.demo.gallery import Example, Gallery, frame, jpeg, picture
from spatial_retrieval.demo.models import Shelf
from spatial_retrieval.demo.results import Answer, Results
from spatial_retrieval.demo.sessions import Sessions, Upload, decode
from spatial_retrieval.demo.store import Store
from spatial_retrieval.images import ImageSource, load_image, resize

__all__ = ["Query", "Service"]


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A query that the service keeps for a while.

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


class Service:
    """Search and localisation over one main gallery and visitors' own.

    Args:
        gallery: what the demo opens with; None: visitors bring their own photographs.
        models: names of models that may be chosen.
        default: the model to begin with.
    """

    def __init__(self, gallery: Gallery | None, models: Sequence[str], default: str) -> None:
        self.gallery = gallery
        self.shelf = Shelf([default, *models])
        self.default = default
        self.sessions = Sessions()
        self._queries: Store[Query] = Store(limits.MAX_QUERIES)
        self._pictures: Store[bytes] = Store(1500)

    def warm(self) -> None:
        """Load the default model and the main gallery's index: the first answer is quick then."""
        if self.gallery is None:
            self.shelf.model(self.default)
        else:
            blank = Image.new("RGB", (64, 64))
            self.shelf.searcher(self.gallery, self.default).search(blank, k=1)

    # -- queries ---------------------------------------------------------------------------------

    def open_query(
        self,
        source: ImageSource | Upload,
        *,
        label: str = "your photograph",
        gallery: str | None = None,
        name: str | None = None,
        example: Example | None = None,
    ) -> Query:
        """Decode a photograph and keep it as a query.

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
        digest = hashlib.sha256(f"{image.size} {gallery} {name} ".encode() + image.tobytes())
        query = Query(digest.hexdigest()[:32], image, label, gallery, name, example, milliseconds)
        self._queries.put(query.key, query)
        return query

    def open_example(self, number: Any, gallery: str | None = None) -> Query:
        """Keep one of a gallery's examples as a query."""
        home = self.gallery_of(gallery)
        example = home.examples[limits.position(number, "the example", len(home.examples))]
        return self.open_query(
            example.path,
            label=example.label,
            gallery=home.key,
            name=example.name,
            example=example,
        )

    def open_answer(self, results: Results, rank: Any) -> Query:
        """Keep an answer as the next query."""
        answer = self.answer(results, rank)
        home = self.gallery_of(results.gallery)
        return self.open_query(
            home.folder / answer.name, label=answer.label, gallery=home.key, name=answer.name
        )

    def query(self, key: Any) -> Query:
        """A kept query.

        Raises:
            ValueError: if it is not kept any more.
        """
        found = self._queries.get(key) if isinstance(key, str) else None
        if found is None:
            raise ValueError("choose a query first: an example, or a photograph of yours")
        return found

    # -- galleries -------------------------------------------------------------------------------

    def gallery_of(self, key: str | None) -> Gallery:
        """The main gallery (no key), or a visitor's own.

        Raises:
            ValueError: if there is none.
        """
        if not key or (self.gallery is not None and key == self.gallery.key):
            if self.gallery is None:
                raise ValueError("there is nothing to search yet: add photographs of yours first")
            return self.gallery
        found = self.sessions.get(key) if isinstance(key, str) else None
        if found is None:
            raise ValueError("these photographs were deleted after an hour; add them again")
        return found

    def forget(self, key: str | None) -> None:
        """Delete a visitor's photographs, if there are any."""
        if isinstance(key, str):
            self.sessions.drop(key)

    def add_photographs(
        self, uploads: Sequence[Upload], model: Any = None
    ) -> tuple[Gallery, dict[str, str]]:
        """Take a visitor's photographs in and describe them.

        Returns:
            The private gallery, and name → reason for files that were set aside.
        """
        name = self._model(model)
        gallery, failed = self.sessions.create(uploads)
        self.shelf.searcher(gallery, name)
        return gallery, failed

    # -- search ----------------------------------------------------------------------------------

    def search(
        self,
        query: Any,
        *,
        box: Any = None,
        model: Any = None,
        rerank: Any = "none",
        k: Any = 12,
        gallery: str | None = None,
    ) -> Results:
        """Rank a gallery by similarity to a kept query, or to a box of it.

        Raises:
            ValueError: if a value is out of bounds; the message says which.
        """
        asked = self.query(query)
        home = self.gallery_of(gallery)
        name = self._model(model)
        chosen = limits.choice(rerank, "the re-ranker", self.rerankers())
        count = limits.whole(k, "the number of answers", 1, limits.MAX_ANSWERS)
        cut = limits.box(box, asked.image.size)
        searcher = self.shelf.searcher(home, name)
        own = asked.name if asked.gallery == home.key else None
        found = searcher.search(asked.image, box=cut, k=count + (own is not None), rerank=chosen)
        times = dict(found.milliseconds)
        times["decode"] = times.get("decode", 0) + asked.decode
        kept = [hit for hit in zip(found.names, found.scores, found.ids, strict=True)]
        kept = [hit for hit in kept if hit[0] != own][:count]
        answers = tuple(
            Answer(rank, hit, home.label(hit), score, number, asked.truth(hit))
            for rank, (hit, score, number) in enumerate(kept, start=1)
        )
        return Results(asked.key, home.key, name, chosen, cut, answers, times)

    def answer(self, results: Results, rank: Any) -> Answer:
        """One answer by its rank, counted from 1."""
        return results.answers[limits.whole(rank, "the rank", 1, len(results.answers)) - 1]

    def picture(self, gallery: str | None, name: str, side: int = 320) -> bytes:
        """JPEG of a gallery's photograph."""
        return picture(self.gallery_of(gallery), name, side, self._pictures)

    def side_by_side(
        self, results: Results, rank: Any, side: int = 640
    ) -> tuple[Image.Image, Image.Image]:
        """The query and an answer on canvases of one size, each as large as it fits."""
        answer = self.answer(results, rank)
        shown = load_image(self.picture(results.gallery, answer.name, side))
        return frame(self.query(results.query).image, shown, side)

    def example_picture(self, example: Example, side: int = 160) -> bytes:
        """JPEG of an example."""
        return self._pictures.get_or(
            f"example/{side}/{example.path}",
            lambda: jpeg(resize(load_image(example.path, draft=side), side)),
        )

    def query_picture(self, key: str, side: int = 720) -> bytes:
        """JPEG of a kept query."""
        query = self.query(key)
        return self._pictures.get_or(
            f"query/{side}/{key}", lambda: jpeg(resize(query.image, side), 85)
        )

    def rerankers(self) -> tuple[str, ...]:
        """Names of the re-rankers on offer."""
        return ("none", "aqe", "superglobal", "verify")

    def _model(self, name: Any) -> str:
        return self.default if name is None else limits.choice(name, "the model", self.shelf.names)
