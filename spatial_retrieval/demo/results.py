"""What the service returns: plain values that the page draws and a program can read."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spatial_retrieval.demo import limits
from spatial_retrieval.images import Box

__all__ = ["Hit", "Results", "moves"]


@dataclass(frozen=True, slots=True)
class Hit:
    """One hit.

    Attributes:
        rank: from 1.
        name, label: of the photograph.
        score: cosine similarity, unless re-ranked.
        id: position in the index.
        truth: "same" or "twin" where the gallery knows; "" otherwise. No ranking sees it.
    """

    rank: int
    name: str
    label: str
    score: float
    id: int
    truth: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """The ranked hits to one query, and what was asked.

    Attributes:
        query: key of the query.
        gallery: key of the gallery.
        model, rerank, box: how it was asked; the box in pixels of the kept query.
        hits: best first.
        milliseconds: stage → time.
    """

    query: str
    gallery: str
    model: str
    rerank: str
    box: Box | None
    hits: tuple[Hit, ...]
    milliseconds: dict[str, float]

    def hit(self, rank: Any) -> Hit:
        """One hit by its rank, counted from 1.

        Raises:
            ValueError: if there is no such rank.
        """
        return self.hits[limits.whole(rank, "the rank", 1, len(self.hits)) - 1]

    def to_json(self) -> dict[str, Any]:
        """Everything but the keys, JSON-able."""
        return {
            "model": self.model,
            "rerank": self.rerank,
            "box": None if self.box is None else [round(v) for v in self.box],
            "hits": [
                {"rank": a.rank, "name": a.name, "label": a.label, "score": round(a.score, 6)}
                for a in self.hits
            ],
            "milliseconds": {stage: round(ms, 2) for stage, ms in self.milliseconds.items()},
        }

    def to_csv(self) -> str:
        """One line a hit, with a header; a leading = + - @ is made harmless for tables."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["rank", "name", "label", "score"])
        for a in self.hits:
            table.writerow([a.rank, _harmless(a.name), _harmless(a.label), f"{a.score:.6f}"])
        return text.getvalue()


def moves(first: Sequence[Hit], second: Sequence[Hit]) -> list[int | None]:
    """For each of the second list's hits: ranks won since the first list; None: it is new."""
    before = {hit.name: hit.rank for hit in first}
    return [before[a.name] - a.rank if a.name in before else None for a in second]


def _harmless(text: str) -> str:
    return "'" + text if text[:1] in "=+-@\t\r" and text else text
