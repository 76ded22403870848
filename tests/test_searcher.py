import logging

import pytest
from pictures import draw
from reranking_toys import textured

from spatial_retrieval import IndexOptions, index_folder, open_index
from spatial_retrieval.rerank import local_features


@pytest.fixture
def searcher(gem_model, photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path / "cache"))
    index_folder(
        photographs,
        tmp_path / "i",
        gem_model,
        model_name="lite0-gem",
        options=IndexOptions(size=64),
        progress=False,
    )
    return open_index(tmp_path / "i")


def test_a_query_is_described_as_the_database_was(searcher, photographs):
    assert searcher.size == 64 and searcher.folder == photographs
    found = searcher.search(photographs / "place1" / "view 5.jpg", k=2)
    assert found.names[0] == "place1/view 5.jpg"
    assert found.scores[0] == pytest.approx(1, abs=1e-4) and found.scores[1] < 0.999
    assert searcher.index.names[found.ids[0]] == found.names[0]


def test_each_stage_is_timed(searcher):
    found = searcher.search(draw(3))
    assert list(found.milliseconds) == ["decode", "describe", "search"]
    assert all(ms > 0 for ms in found.milliseconds.values())
    assert found.to_json()["results"][0]["rank"] == 1


def test_a_box_changes_the_question(searcher):
    whole = searcher.search(draw(3), k=1)
    part = searcher.search(draw(3), box=(0, 0, 30, 30), k=1)
    assert part.scores[0] != whole.scores[0]
    with pytest.raises(ValueError, match="expected a box"):
        searcher.search(draw(3), box=(0, 0, 0, 0))


def test_an_index_without_its_model_is_refused(tmp_path):
    import numpy as np

    from spatial_retrieval import DescriptorIndex

    DescriptorIndex.build(np.eye(2), ["a", "b"]).save(tmp_path)
    with pytest.raises(ValueError, match="does not say which model"):
        open_index(tmp_path)


def test_each_photograph_is_searched_for_local_features_once(searcher, tmp_path, monkeypatch):
    looked, extract = [], local_features._sift_features
    monkeypatch.setattr(
        local_features, "_sift_features", lambda *args: looked.append(1) or extract(*args)
    )
    query = tmp_path / "query.png"
    textured(0).save(query)
    first = searcher.search(query, rerank="verify")
    assert len(looked) == 7  # the query and the index's six
    again = searcher.search(query, rerank="verify")
    assert len(looked) == 7 and again.ids == first.ids
    open_index(tmp_path / "i").search(query, rerank="hypergraph")
    assert len(looked) == 7  # another process would find them in the cache's folder
    searcher.search(textured(1), rerank="verify")
    assert len(looked) == 8


def test_a_reranker_reads_an_open_file_too(searcher, photographs, caplog):
    path = photographs / "place0" / "view 2.jpg"
    textured(3).save(path)
    by_path = searcher.search(path, rerank="verify")
    with path.open("rb") as file, caplog.at_level(logging.WARNING):
        by_file = searcher.search(file, rerank="verify")
    assert caplog.text == ""
    assert by_file.names == by_path.names and by_file.scores == by_path.scores
    assert by_file.names[0] == "place0/view 2.jpg" and by_file.scores[0] > 2  # inliers counted
