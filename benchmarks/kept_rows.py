"""Finished rows of the re-ranking benchmark, kept in a file so that a run can go on."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from spatial_retrieval.evaluate.reranking import Reranked
from spatial_retrieval.files import write_json
from spatial_retrieval.ranking import Ranking

COSTS = ("milliseconds", "cpu_milliseconds", "features_milliseconds")


def known_rows(results: Path | None, about: str) -> dict[str, Reranked]:
    """Rows of an earlier run on the same data with the same weights; their lists are not kept."""
    if results is None or not results.exists():
        return {}
    kept = json.loads(results.read_text()).get(about, [])
    return {facts["name"]: _restored(**facts) for facts in kept}


def _restored(ap: list[float], **facts: Any) -> Reranked:
    no_list = np.zeros((len(ap), 0))
    return Reranked(ap=np.array(ap), ranking=Ranking(no_list, no_list), **facts)


def keep_row(results: Path | None, about: str, row: Reranked) -> None:
    """Add a finished row to those of an earlier run."""
    if results is None or row.name in known_rows(results, about):
        return
    kept = json.loads(results.read_text()) if results.exists() else {}
    facts = {name: getattr(row, name) for name in ("name", *COSTS)} | {"ap": row.ap.tolist()}
    write_json(results, kept | {about: [*kept.get(about, []), facts]})
