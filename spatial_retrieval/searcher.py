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
from spatial_retrieval.rerank import FeatureCache, RerankContext, by_name

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
        rerank: str = "none",
        shortlist: int = 100,
    ) -> Hits:
        """Rank the database by similarity to a photograph, or to a box of it.

        Args:
            image: path, bytes, file or PIL image.
            box: (x0, y0, x1, y1) upright pixels; None means the whole photograph.
            k: number of hits, cut to the size of the database.
            rerank: name of a re-ranker, see :func:`spatial_retrieval.rerank.by_name`.
            shortlist: how many hits a re-ranker may look at.

        Raises:
            ImageError: if the photograph cannot be read.
            ValueError: if the box, ``k`` or the re-ranker's name is wrong.
        """
        if k < 1:
            raise ValueError(f"expected k of at least 1, got {k}")
        if rerank != "none" and hasattr(image, "read"):
            image = image.read()  # an open file is read only once, and a re-ranker looks again
        times: dict[str, float] = {}
        start = perf_counter()
        tensor = load_tensor(image, size=self.size, box=box)
        start = _lap(times, "decode", start)
        with torch.inference_mode():
            rows = self.model(tensor[None].to(self.model.device), self.scales).float().cpu()
        query = rows.numpy()  # (1, D)
        start = _lap(times, "describe", start)
        ranking = self.index.search(query, k if rerank == "none" else max(k, shortlist))
        start = _lap(times, "search", start)
        if rerank != "none":
            ranking = self._rerank(rerank, ranking, query, image, box)
            _lap(times, "rerank", start)
        ids = ranking.ids[0, :k]
        return Hits(
            names=tuple(self.index.names[i] for i in ids),
            scores=tuple(float(s) for s in ranking.scores[0, :k]),
            ids=tuple(int(i) for i in ids),
            milliseconds=times,
        )

    def _rerank(
        self, name: str, ranking: Ranking, query: np.ndarray, image: ImageSource, box: Box | None
    ) -> Ranking:
        context = RerankContext(
            queries=query,
            database=self.index.descriptors,
            query_images=[image],
            query_boxes=[box],
            database_images=None if self.folder is None else _Files(self.folder, self.index.names),
            model=self.model,
            features=self.features,
        )
        return by_name(name)(ranking, context)


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
    return Searcher(
        index, loaded, size, tuple(scales),
        folder=Path(source) if source else None, features=FeatureCache.kept(),
    )  # fmt: skip


def _lap(times: dict[str, float], stage: str, start: float) -> float:
    now = perf_counter()
    times[stage] = (now - start) * 1000
    return now
