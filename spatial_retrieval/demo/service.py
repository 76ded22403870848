"""What the demo can do, without gradio: every value that comes in is checked here."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from spatial_retrieval.demo import limits
from spatial_retrieval.demo.bundle import bundle
from spatial_retrieval.demo.gallery import Example, Gallery, frame, jpeg, picture
from spatial_retrieval.demo.inside import Inside, look_inside
from spatial_retrieval.demo.locate import Locator, Places, strongest
from spatial_retrieval.demo.models import Shelf
from spatial_retrieval.demo.needed import Agreement, Verified, agreement, verified
from spatial_retrieval.demo.queries import Queries
from spatial_retrieval.demo.results import Hit, Results
from spatial_retrieval.demo.sessions import Sessions, Upload
from spatial_retrieval.demo.store import Store
from spatial_retrieval.images import load_image, resize
from spatial_retrieval.localize import THRESHOLD

__all__ = ["RERANKERS", "Service"]

RERANKERS = ("none", "aqe", "dba+aqe", "superglobal", "verify", "verify-cells", "hypergraph")
_PICTURES = 1500  # kept at once, some 20 kB each


class Service:
    """Search and localization over one main gallery and visitors' own.

    Args:
        gallery: what the demo opens with; None: visitors bring their own photographs.
        models: names of models that may be chosen.
        default: the model to begin with.
    """

    def __init__(self, gallery: Gallery | None, models: Sequence[str], default: str) -> None:
        self.gallery = gallery
        self.default = default
        self.shelf = Shelf([default, *models])
        self.sessions = Sessions()
        self.queries = Queries(self.gallery_of)
        self.locator = Locator(self.shelf)
        self._pictures: Store[bytes] = Store(_PICTURES)

    def warm(self) -> None:
        """Load the default model and the main gallery's index: the first hit is quick then."""
        if self.gallery is None:
            self.shelf.model(self.default)
        else:
            blank = Image.new("RGB", (64, 64))
            self.shelf.searcher(self.gallery, self.default).search(blank, k=1)

    # -- galleries

    def gallery_of(self, key: Any = None) -> Gallery:
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

    def add_photographs(
        self, uploads: Sequence[Upload], *, model: Any = None
    ) -> tuple[Gallery, dict[str, str]]:
        """Take a visitor's photographs in and describe them.

        Returns:
            The private gallery, and name → reason for files that were set aside.
        """
        name = self._model(model)
        gallery, failed = self.sessions.create(uploads)
        self.shelf.searcher(gallery, name)
        return gallery, failed

    def forget(self, key: Any) -> None:
        """Delete a visitor's photographs, if there are any."""
        if isinstance(key, str):
            self.sessions.drop(key)

    # -- search

    def search(
        self,
        query: Any,
        *,
        box: Any = None,
        model: Any = None,
        rerank: Any = "none",
        k: Any = 12,
        gallery: Any = None,
    ) -> Results:
        """Rank a gallery by similarity to a kept query, or to a box of it.

        A query that is itself in the gallery is left out of its hits.

        Raises:
            ValueError: if a value is out of bounds; the message says which.
        """
        asked, home, name = self.queries[query], self.gallery_of(gallery), self._model(model)
        chosen = limits.choice(rerank, "the re-ranker", RERANKERS)
        count = limits.whole(k, "the number of hits", 1, limits.MAX_ANSWERS)
        cut = limits.box(box, asked.image.size)
        own = asked.name if asked.gallery == home.key else None
        searcher = self.shelf.searcher(home, name)
        with self.locator.first():
            found = searcher.search(
                asked.image, box=cut, k=count + (own is not None), rerank=chosen
            )
        hits = zip(found.names, found.scores, found.ids, strict=True)
        kept = [hit for hit in hits if hit[0] != own][:count]
        hits = tuple(
            Hit(rank, hit, home.label(hit), score, number, asked.truth(hit))
            for rank, (hit, score, number) in enumerate(kept, start=1)
        )
        times = {**found.milliseconds, "decode": found.milliseconds["decode"] + asked.decode}
        return Results(asked.key, home.key, name, chosen, cut, hits, times)

    def agreement(self, results: Results) -> Agreement:
        """Do the first hits agree with each other? See :mod:`~spatial_retrieval.demo.needed`."""
        first = self._again(results, "none")
        return agreement(first, self.shelf.searcher(self.gallery_of(results.gallery), first.model))

    def verified(self, results: Results) -> Verified:
        """What spatial verification makes of the first hits."""
        first = self._again(results, "none")
        home = self.gallery_of(results.gallery)
        searcher = self.shelf.searcher(home, first.model)
        return verified(first, searcher, home.folder, self.queries[results.query].image)

    # -- localization and what is inside

    def locate(
        self,
        results: Results,
        *,
        points: Any = (),
        box: Any = None,
        layer: Any = "fine",
        threshold: Any = THRESHOLD,
        side: int = 320,
    ) -> Places:
        """Where in each hit is what is marked on the query; without marks: its main object.

        Args:
            results: of a search.
            points: (x, y, wanted) in pixels of the kept query.
            box: (x0, y0, x1, y1), the same.
            layer: "fine" or "own", see ``locate.LAYERS``.
            threshold: lowest score of a region.
            side: longest side of the masks.
        """
        query, home = self.queries[results.query], self.gallery_of(results.gallery)
        prepared = self.locator.prepare(query.key, query.image, results.model, layer, points, box)
        pictures = [self.picture(home.key, hit.name, side) for hit in results.hits]
        return self.locator.locate(
            prepared, results, home, pictures, layer=layer, threshold=threshold
        )

    def look_ahead(self, results: Results) -> None:
        """Make the hits' maps in the background: the first click is answered sooner then."""
        self.locator.prefetch(results, self.gallery_of(results.gallery))

    def bundle(self, results: Results, *, side: int = 640, **asked: Any) -> bytes:
        """Hits, places and overlays as one zip archive; ``asked`` as in :meth:`locate`."""
        places = self.locate(results, side=side, **asked)
        pictures = [self.picture(results.gallery, found.name, side) for found in places.found]
        return bundle(results, places, pictures)

    def seed(
        self, query: Any, *, box: Any = None, layer: Any = "fine", model: Any = None
    ) -> tuple[float, float]:
        """The point (x, y) of a kept query that stands for its main object."""
        asked, name = self.queries[query], self._model(model)
        prepared = self.locator.prepare(asked.key, asked.image, name, layer, (), box)
        return strongest(prepared, asked.image.size)

    def inside(self, results: Results, *, point: Any = None, rank: Any = 1) -> Inside:
        """What the model does with a query around a point, and where it resembles a hit."""
        asked, hit = self.queries[results.query], results.hit(rank)
        other = self.gallery_of(results.gallery).folder / hit.name
        size = asked.image.size
        place = limits.points([point], size)[0][:2] if point else (size[0] / 2, size[1] / 2)
        return look_inside(self.shelf.model(results.model), asked.image, other, place)

    # -- pictures

    def picture(self, gallery: Any, name: str, side: int = 320) -> bytes:
        """JPEG of a gallery's photograph."""
        return picture(self.gallery_of(gallery), name, side, self._pictures)

    def query_picture(self, key: Any, side: int = 720) -> bytes:
        """JPEG of a kept query."""
        image = self.queries[key].image
        return self._pictures.get_or(f"query/{side}/{key}", lambda: jpeg(resize(image, side), 85))

    def example_picture(self, example: Example, side: int = 160) -> bytes:
        """JPEG of an example."""
        return self._pictures.get_or(
            f"example/{side}/{example.path}",
            lambda: jpeg(resize(load_image(example.path, draft=side), side)),
        )

    def side_by_side(
        self, results: Results, rank: Any, side: int = 640
    ) -> tuple[Image.Image, Image.Image]:
        """The query and a hit on canvases of one size, each as large as it fits."""
        hit = results.hit(rank)
        shown = load_image(self.picture(results.gallery, hit.name, side))
        return frame(self.queries[results.query].image, shown, side)

    def _model(self, name: Any) -> str:
        return self.default if name is None else limits.choice(name, "the model", self.shelf.names)

    def _again(self, results: Results, rerank: str) -> Results:
        """The first 20 hits to the same question, re-ranked as said."""
        return self.search(
            results.query, box=results.box, model=results.model, rerank=rerank, k=20,
            gallery=results.gallery,
        )  # fmt: skip
