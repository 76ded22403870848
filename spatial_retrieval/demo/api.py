"""The page's buttons for programs: plain endpoints, photographs as base64 text, no paths."""

import base64
import binascii
from typing import Any

import gradio as gr

from spatial_retrieval.demo import limits
from spatial_retrieval.demo.components import said
from spatial_retrieval.demo.queries import KeptQuery
from spatial_retrieval.demo.service import Service
from spatial_retrieval.demo.uploads import Upload
from spatial_retrieval.localize import THRESHOLD
from spatial_retrieval.rerank import BASIC_NAMES

__all__ = ["Endpoints", "add_endpoints"]


def add_endpoints(service: Service) -> None:
    """Add all endpoints to the current blocks, one heavy call at a time."""
    made = Endpoints(service)
    functions = (
        made.about,
        made.search,
        made.localize,
        made.seed,
        made.inside,
        made.needed,
        made.add_photographs,
        made.delete_photographs,
    )
    for function in functions:
        gr.api(said(function), api_name=function.__name__, concurrency_limit=None)


class Endpoints:
    """What each endpoint does. A query is an example's number or a photograph in base64.

    Args:
        service: hits.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def about(self) -> dict[str, Any]:
        """What can be asked for: examples, models, re-rankers, limits."""
        gallery = self._service.gallery
        return {
            "examples": [] if gallery is None else [example.label for example in gallery.examples],
            "photographs": 0 if gallery is None else len(gallery.names),
            "models": list(self._service.shelf.names),
            "rerankers": list(BASIC_NAMES),
            "hits": limits.MAX_HITS,
            "bytes": limits.MAX_JSON_BYTES,
        }

    def search(
        self,
        query: str,
        box: list[float] | None = None,
        model: str | None = None,
        rerank: str = "none",
        k: int = 12,
        photographs: str | None = None,
    ) -> dict[str, Any]:
        """Rank a gallery by a query, or by a box x0, y0, x1, y1 of it."""
        asked = self._open(query, photographs)
        results = self._service.search(
            asked.key, box=box, model=model, rerank=rerank, k=k, gallery=photographs
        )
        return {"size": list(asked.image.size), **results.to_json()}

    def localize(
        self,
        query: str,
        marks: list[list[float]] | None = None,
        model: str | None = None,
        k: int = 12,
        threshold: float = THRESHOLD,
        photographs: str | None = None,
    ) -> dict[str, Any]:
        """Where in the hits is what is marked on the query: by points x, y, wanted or a box."""
        points, box = _marked(marks)
        asked = self._open(query, photographs)
        results = self._service.search(asked.key, box=box, model=model, k=k, gallery=photographs)
        localized = self._service.localize(results, points=points, box=box, threshold=threshold)
        return {
            "size": list(asked.image.size),
            "hits": [found.to_json() for found in localized.found],
            "milliseconds": {**results.milliseconds, **localized.milliseconds},
        }

    def seed(self, query: str, model: str | None = None) -> list[float]:
        """The point x, y of a query that stands for its main object."""
        return list(self._service.seed(self._open(query, None).key, model=model))

    def inside(
        self, query: str, rank: int = 1, point: list[float] | None = None, model: str | None = None
    ) -> dict[str, Any]:
        """What each cell of the query and of a hit adds to their similarity."""
        results = self._service.search(self._open(query, None).key, model=model)
        found = self._service.inside(results, point=point, rank=rank)
        return {
            "similarity": round(found.similarity, 6),
            "query": found.shares[0].tolist(),
            "hit": found.shares[1].tolist(),
            "stages": list(found.stages),
        }

    def needed(self, query: str, model: str | None = None, verify: bool = False) -> dict[str, Any]:
        """Whether the first 20 hits agree, and, if asked, what verification changes."""
        results = self._service.search(self._open(query, None).key, model=model)
        found = self._service.agreement(results)
        hit = {
            "uncertainty": round(found.uncertainty, 4),
            "needed": found.needed,
            "communities": [[found.names[i] for i in group] for group in found.communities],
        }
        if verify is True:
            checked = self._service.verified(results)
            hit["verified"] = [[a.name, checked.inliers[a.name]] for a in checked.after]
        return hit

    def add_photographs(self, photographs: list[str], names: list[str]) -> dict[str, Any]:
        """Make photographs in base64 searchable; the key that comes back goes into ``search``."""
        if not isinstance(photographs, list) or not isinstance(names, list):
            raise ValueError("expected a list of photographs and a list of their names")
        if not 1 <= len(photographs) == len(names) <= limits.MAX_PHOTOGRAPHS:
            raise ValueError(
                f"expected 1 to {limits.MAX_PHOTOGRAPHS} photographs and a name for each, got "
                f"{len(photographs)} and {len(names)}"
            )
        uploads = [
            Upload(str(name)[:100], _decoded(text))
            for text, name in zip(photographs, names, strict=True)
        ]
        gallery, failed = self._service.add_photographs(uploads)
        return {"photographs": gallery.key, "count": len(gallery.names), "set_aside": failed}

    def delete_photographs(self, photographs: str) -> str:
        """Delete them now."""
        self._service.forget(photographs)
        return "deleted"

    def _open(self, query: Any, photographs: str | None) -> KeptQuery:
        if isinstance(query, str) and len(query) <= 3 and query.isdecimal():
            return self._service.queries.open_example(int(query), photographs)
        return self._service.queries.open(Upload("the query", _decoded(query)))


def _marked(marks: Any) -> tuple[list[Any], Any]:
    """Points, and the box among the marks: it has four numbers."""
    if marks is None:
        return [], None
    if not isinstance(marks, list) or len(marks) > limits.MAX_POINTS + 1:
        raise ValueError(f"expected at most {limits.MAX_POINTS} points and a box as marks")
    boxes = [mark for mark in marks if isinstance(mark, list) and len(mark) == 4]
    if len(boxes) > 1:
        raise ValueError(f"expected at most one box among the marks, got {len(boxes)}")
    return [mark for mark in marks if mark not in boxes], boxes[0] if boxes else None


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str) or len(text) > limits.MAX_JSON_BYTES:
        raise ValueError(
            "expected a photograph as base64 text of at most "
            f"{limits.MAX_JSON_BYTES // 1_000_000} MB, or an example's number as text"
        )
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("expected a photograph as base64 text; this is something else") from error
