"""One query against one index: decode, describe, search, re-rank, each stage timed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from spatial_retrieval.features.extraction import load_tensor
from spatial_retrieval.images import Box, ImageSource
from spatial_retrieval.index import DescriptorIndex
from spatial_retrieval.models import RetrievalModel, load_model
from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank import FeatureCache, RerankContext, Reranker, resolve
from spatial_retrieval.rerank.order import without_self

__all__ = ["Hits", "Searcher", "open_index"]


@dataclass(frozen=True, slots=True)
class Hits:
    """The ranked hits to one query.

    Attributes:
        names: K names, best first.
        scores: K scores, never rising: cosine similarities unless re-ranked.
        ids: K positions in the index.
        milliseconds: stage → time, in the order they ran.
    """

    names: tuple[str, ...]
    scores: tuple[float, ...]
    ids: tuple[int, ...]
    milliseconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Results and times as JSON-able values."""
        results = [
            {"rank": rank, "name": name, "score": round(score, 6)}
            for rank, (name, score) in enumerate(zip(self.names, self.scores, strict=True), start=1)
        ]
        times = {stage: round(ms, 3) for stage, ms in self.milliseconds.items()}
        return {"results": results, "milliseconds": times}


@dataclass(frozen=True, slots=True, eq=False)
class Searcher:
    """An index together with the model that described it.

    Attributes:
        index: the database.
        model: describes the query.
        size, scales: how the database was described, and so the query is.
        folder: where the database's photographs are, for re-rankers that look at them.
        features: keeps their local features, so that each photograph is looked at once.
    """

    index: DescriptorIndex
    model: RetrievalModel
    size: int
    scales: Sequence[float] = (1.0,)
    folder: Path | None = None
    features: FeatureCache = field(default_factory=FeatureCache)

    def search(
        self,
        image: ImageSource,
        *,
        box: Box | None = None,
        k: int = 10,
        rerank: Reranker | str = "none",
        shortlist: int = 100,
        exclude: str | None = None,
    ) -> Hits:
        """Rank the database by similarity to a photograph, or to a box of it.

        Args:
            image: path, bytes, file or PIL image.
            box: (x0, y0, x1, y1) upright pixels; None means the whole photograph.
            k: number of hits, cut to the size of the database.
            rerank: a re-ranker, or its name, see :mod:`spatial_retrieval.rerank`.
            shortlist: how many hits a re-ranker may look at.
            exclude: name of a database photograph, such as the query itself, that is searched as
                if the database didn't hold it.

        Raises:
            ImageError: if the photograph cannot be read.
            ValueError: if the box, ``k``, the re-ranker's or the excluded name is wrong.
        """
        if k < 1:
            raise ValueError(f"expected k of at least 1, got {k}")
        reranker = None if rerank == "none" else resolve(rerank)
        own = None if exclude is None else self._position(exclude)
        if reranker and hasattr(image, "read"):
            image = image.read()  # an open file is read only once, and a re-ranker looks again
        times: dict[str, float] = {}
        query = self._describe(image, box, times)  # (1, D)
        start = perf_counter()
        ranking = self._ranked(query, max(k, shortlist) if reranker else k, own)
        start = _lap(times, "search", start)
        if reranker and ranking.k:
            ranking = reranker(ranking, self._context(query, image, box, own))
            _lap(times, "rerank", start)
        ids = ranking.ids[0, :k]
        return Hits(
            names=tuple(self.index.names[i] for i in ids),
            scores=tuple(float(s) for s in ranking.scores[0, :k]),
            ids=tuple(int(i) for i in ids),
            milliseconds=times,
        )

    def _describe(self, image: ImageSource, box: Box | None, times: dict[str, float]) -> np.ndarray:
        """(1, D) descriptor; notes the times of decoding and describing."""
        start = perf_counter()
        tensor = load_tensor(image, size=self.size, box=box)
        start = _lap(times, "decode", start)
        with torch.inference_mode():
            images = tensor[None].to(self.model.device, self.model.dtype)
            rows = self.model(images, self.scales).float().cpu()
        _lap(times, "describe", start)
        return rows.numpy()

    def _ranked(self, query: np.ndarray, k: int, own: int | None) -> Ranking:
        if own is None:
            return self.index.search(query, k)
        return without_self(self.index.search(query, k + 1), np.array([own]))

    def _position(self, name: str) -> int:
        try:
            return self.index.names.index(name)
        except ValueError as error:
            raise ValueError(f"expected the name of a database photograph, got {name!r}") from error

    def _context(
        self, query: np.ndarray, image: ImageSource, box: Box | None, own: int | None
    ) -> RerankContext:
        return RerankContext(
            queries=query,
            database=self.index.descriptors,
            query_images=[image],
            query_boxes=[box],
            database_images=None if self.folder is None else _Files(self.folder, self.index.names),
            model=self.model,
            fingerprint=self.index.info.get("model_hash"),
            features=self.features,
            own=None if own is None else np.array([own]),
        )


@dataclass(frozen=True, slots=True)
class _Files(Sequence[Path]):
    """Where the database's photographs are; a path is made when it is asked for."""

    folder: Path
    names: Sequence[str]

    def __getitem__(self, i: int) -> Path:
        return self.folder / self.names[i]

    def __len__(self) -> int:
        return len(self.names)


def open_index(folder: str | Path, *, model: str | None = None) -> Searcher:
    """Open an index that ``spatial-retrieval index`` made, with the model it was made with.

    Local features that re-rankers extract are kept in ``local-features`` of the cache folder; it
    may be deleted at any time.

    Args:
        folder: the index.
        model: name or folder of the model; None takes the name that the index holds.

    Raises:
        ValueError: if the index is damaged, or the model is not the one it was built with.
    """
    index = DescriptorIndex.load(folder)
    try:
        built_with, size, scales = (index.info[key] for key in ("model", "size", "scales"))
    except KeyError as error:
        raise ValueError(f"{folder}: this index does not say which model described it") from error
    loaded = load_model(model or built_with)
    if loaded.fingerprint() != index.info["model_hash"]:
        raise ValueError(
            f"{folder}: built with another model ({built_with!r}) than {model or built_with!r} is "
            "now; search with that one, or index the folder again"
        )
    index.search(index.descriptors[:1], 1)  # so that the first query does not pay for the start
    source = index.info.get("folder")
    folder = Path(source) if source else None
    return Searcher(index, loaded, size, tuple(scales), folder, FeatureCache.kept())


def _lap(times: dict[str, float], stage: str, start: float) -> float:
    now = perf_counter()
    times[stage] = (now - start) * 1000
    return now
