"""What the demo can do, without gradio: every value that comes in is checked here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from spatial_retrieval.demo import limits
from spatial_retrieval.demo.bundle import bundle
from spatial_retrieval.demo.gallery import Gallery, tile
from spatial_retrieval.demo.inside import Inside, look_inside
from spatial_retrieval.demo.line import Line
from spatial_retrieval.demo.localizer import LocalizedHits, Localizer, strongest
from spatial_retrieval.demo.models import Shelf
from spatial_retrieval.demo.needed import HitAgreement, Verified, agreement, verified
from spatial_retrieval.demo.pictures import Pictures
from spatial_retrieval.demo.queries import Queries
from spatial_retrieval.demo.results import Hit, Results
from spatial_retrieval.demo.sessions import Sessions
from spatial_retrieval.demo.uploads import Upload, Uploads
from spatial_retrieval.demo.workspace import Workspace
from spatial_retrieval.localize import THRESHOLD
from spatial_retrieval.rerank import BASIC_NAMES

__all__ = ["Service"]

_FEW = 4  # photographs described in one turn


class Service:
    """Search and localization over one main gallery and visitors' own.

    Heavy steps are done one at a time, see :class:`~spatial_retrieval.demo.line.Line`; each of them
    may raise :class:`~spatial_retrieval.demo.line.TurnError`.

    Args:
        gallery: what the demo opens with; None: visitors bring their own photographs.
        models: names of models that may be chosen.
        default: the model to begin with.
        workspace: where visitors' files are; None: a new one.
        line: bounds for heavy steps.
    """

    def __init__(
        self,
        gallery: Gallery | None,
        models: Sequence[str],
        default: str,
        *,
        workspace: Workspace | None = None,
        line: Line | None = None,
    ) -> None:
        self.gallery = gallery
        self.default = default
        self.line = line or Line()
        self.workspace = workspace or Workspace()
        self.uploads = Uploads(self.workspace.uploads)
        self.pictures = Pictures(self.workspace.uploads)
        self.shelf = Shelf([default, *models])
        self.sessions = Sessions(
            self.workspace.galleries, self.line, dropped=lambda gone: self._forget_all(gone.key)
        )
        self.queries = Queries(self.gallery_of, self.line)
        self.localizer = Localizer(self.shelf, self.line)

    def warm(self) -> None:
        """Load the default model and the main gallery's index: the first hit is quick then."""
        if self.gallery is None:
            self.shelf.model(self.default)
        else:
            blank = Image.new("RGB", (64, 64))
            self.shelf.searcher(self.gallery, self.default).search(blank, k=1)

    def sweep(self) -> None:
        """Delete what has been kept for too long; to be called by a clock."""
        for kept in (self.sessions, self.queries, self.uploads, self.pictures):
            kept.sweep()

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
        return self.sessions[key if isinstance(key, str) else ""]

    def add_photographs(
        self, uploads: Sequence[Upload], *, model: Any = None
    ) -> tuple[Gallery, dict[str, str]]:
        """Take a visitor's photographs in and describe them, a few in each turn.

        Returns:
            The private gallery, and name → reason for files that were set aside.
        """
        name = self._model(model)
        with self.sessions.taking(uploads) as (gallery, failed):
            rows = []
            for start in range(0, len(gallery.names), _FEW):
                with self.line.turn():
                    rows += self.shelf.rows(gallery, name, slice(start, start + _FEW))
            self.shelf.keep(gallery, name, rows)
        return gallery, failed

    def forget(self, key: Any) -> None:
        """Delete a visitor's photographs and all that was made of them, if there are any."""
        if isinstance(key, str):
            self.sessions.drop(key)

    def _forget_all(self, key: str) -> None:
        for kept in (self.queries, self.shelf, self.localizer, self.pictures):
            kept.forget(key)

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

        A query that is itself in the gallery is left out before anything is ranked.

        Raises:
            ValueError: if a value is out of bounds; the message says which.
        """
        asked, home, name = self.queries[query], self.gallery_of(gallery), self._model(model)
        chosen = limits.choice(rerank, "the re-ranker", BASIC_NAMES)
        count = limits.whole(k, "the number of hits", 1, limits.MAX_HITS)
        cut = limits.marked_box(box, asked.image.size)
        with self.line.turn():
            searcher = self.shelf.searcher(home, name)
            found = searcher.search(
                asked.image, box=cut, k=count, rerank=chosen, exclude=asked.name_in(home)
            )
        hits = tuple(
            Hit(rank, hit, home.label(hit), score, number, asked.truth(hit))
            for rank, (hit, score, number) in enumerate(
                zip(found.names, found.scores, found.ids, strict=True), start=1
            )
        )
        times = {**found.milliseconds, "decode": found.milliseconds["decode"] + asked.decode}
        return Results(asked.key, home.key, name, chosen, cut, hits, times)

    def agreement(self, results: Results) -> HitAgreement:
        """Do the first hits agree with each other? See :mod:`~spatial_retrieval.demo.needed`."""
        with self.line.turn():
            first = self._again(results, "none")
            home = self.gallery_of(results.gallery)
            own = self.queries[results.query].name_in(home)
            return agreement(first, self.shelf.searcher(home, first.model), own)

    def verified(self, results: Results) -> Verified:
        """What spatial verification makes of the first hits."""
        with self.line.turn():
            first = self._again(results, "none")
            home = self.gallery_of(results.gallery)
            searcher = self.shelf.searcher(home, first.model)
            return verified(first, searcher, home.folder, self.queries[results.query].image)

    def pair(self, results: Results, rank: Any) -> tuple[Path, Path]:
        """Files of the query and a hit, framed alike, that the current visitor may fetch."""
        hit, home = results.hit(rank), self.gallery_of(results.gallery)
        made = self.pictures.pair(self.queries[results.query], home, hit.name)
        self.uploads.note(map(str, made))
        return made

    # -- localization and what is inside

    def localize(
        self,
        results: Results,
        *,
        points: Any = (),
        box: Any = None,
        layer: Any = "fine",
        threshold: Any = THRESHOLD,
        side: int = 320,
    ) -> LocalizedHits:
        """Where in each hit is what is marked on the query; without marks: its main object.

        Args:
            results: of a search.
            points: (x, y, wanted) in pixels of the kept query.
            box: (x0, y0, x1, y1), the same.
            layer: "fine" or "pooled", see ``localizer.LAYERS``.
            threshold: lowest score of a region.
            side: longest side of the masks.
        """
        query, home = self.queries[results.query], self.gallery_of(results.gallery)
        with self.line.turn():
            prepared = self.localizer.prepare(query, results.model, layer, points, box)
            pictures = [self.pictures.photograph(home, hit.name, side) for hit in results.hits]
            return self.localizer.localize(
                prepared, results, home, pictures, layer=layer, threshold=threshold
            )

    def look_ahead(self, results: Results) -> None:
        """Make the hits' maps in the background: the first click is served sooner then."""
        self.localizer.prefetch(results, self.gallery_of(results.gallery))

    def bundle(self, results: Results, *, side: int = 640, **asked: Any) -> bytes:
        """Hits, regions and overlays as one zip archive; ``asked`` as in :meth:`localize`."""
        home = self.gallery_of(results.gallery)
        with self.line.turn():
            found = self.localize(results, side=side, **asked)
            pictures = [self.pictures.photograph(home, hit.name, side) for hit in found.found]
            return bundle(results, found, pictures)

    def seed(
        self, query: Any, *, box: Any = None, layer: Any = "fine", model: Any = None
    ) -> tuple[float, float]:
        """The point (x, y) of a kept query that stands for its main object."""
        asked, name = self.queries[query], self._model(model)
        with self.line.turn():
            prepared = self.localizer.prepare(asked, name, layer, (), box)
        return strongest(prepared, asked.image.size)

    def inside(self, results: Results, *, point: Any = None, rank: Any = 1) -> Inside:
        """What the model does with a query around a point, and where it resembles a hit."""
        asked, hit = self.queries[results.query], results.hit(rank)
        size = asked.image.size
        place = limits.marked_points([point], size)[0][:2] if point else (size[0] / 2, size[1] / 2)
        with self.line.turn():
            other = tile(self.gallery_of(results.gallery).folder / hit.name, limits.LONGEST_SIDE)
            return look_inside(self.shelf.model(results.model), asked.image, other, place)

    def _model(self, name: Any) -> str:
        return self.default if name is None else limits.choice(name, "the model", self.shelf.names)

    def _again(self, results: Results, rerank: str) -> Results:
        """The first 20 hits to the same question, re-ranked as said."""
        asked = {"box": results.box, "model": results.model, "gallery": results.gallery}
        return self.search(results.query, rerank=rerank, k=20, **asked)
