import copy
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
from pictures import draw
from reranking_toys import TURN, textured, warped

from spatial_retrieval import (
    DescriptorIndex,
    IndexOptions,
    Searcher,
    describe,
    index_folder,
    open_index,
)
from spatial_retrieval.models import RetrievalModel
from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank import BASIC_NAMES, local_features


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


# ---------------------------------------------------------------- the query in its own database


@pytest.fixture(scope="module")
def twice(gem_model, tmp_path_factory):
    """Two searchers: one whose index holds the query, one whose index doesn't."""
    root = tmp_path_factory.mktemp("twice")
    (root / "with").mkdir()
    pictures = [textured(seed) for seed in (0, 1, 2)]
    for i in range(15):  # three scenes, five views each; all of one scene resemble each other
        shift = np.array([[1, 0, 3 * i], [0, 1, -2 * i], [0, 0, 1]])
        view = warped(pictures[i % 3], shift @ TURN if i % 2 else shift)
        view.save(root / "with" / f"{i:02d}.png")
    shutil.copytree(root / "with", root / "without")
    (root / "without" / "04.png").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPATIAL_RETRIEVAL_CACHE", str(root / "cache"))
        for kind in ("with", "without"):
            index_folder(
                root / kind,
                root / f"{kind}-index",
                gem_model,
                model_name="lite0-gem",
                options=IndexOptions(size=128),
                progress=False,
            )
        return open_index(root / "with-index"), open_index(root / "without-index")


@pytest.mark.parametrize("name", BASIC_NAMES)
def test_an_excluded_query_is_searched_as_if_the_database_did_not_hold_it(twice, name):
    full, rest = twice
    query = full.folder / "04.png"
    found = full.search(query, k=14, rerank=name, exclude="04.png")
    expected = rest.search(query, k=14, rerank=name)
    assert found.names == expected.names
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


def test_taking_the_query_out_afterwards_would_be_another_expansion(twice):
    full, _ = twice
    query = full.folder / "04.png"
    late = full.search(query, k=15, rerank="aqe")
    found = full.search(query, k=14, rerank="aqe", exclude="04.png")
    kept = [s for n, s in zip(late.names, late.scores, strict=True) if n != "04.png"]
    assert not np.allclose(kept, found.scores, atol=1e-4)


def test_only_a_photograph_of_the_database_can_be_excluded(searcher):
    with pytest.raises(ValueError, match="name of a database photograph, got 'elsewhere'"):
        searcher.search(draw(3), exclude="elsewhere")


def test_a_database_of_the_query_alone_has_no_hits(twice):
    full, _ = twice
    one = replace(full, index=full.index.build(full.index.descriptors[:1], ("00.png",)))
    found = one.search(full.folder / "00.png", rerank="hypergraph", exclude="00.png")
    assert found.names == ()


def test_ones_own_function_is_a_reranker(searcher):
    asked = []

    def backwards(ranking, context):
        asked.append((ranking.ids.shape, context.own))
        return Ranking(ranking.ids[:, ::-1], np.zeros(ranking.ids.shape))

    first = searcher.search(draw(3), k=6)
    found = searcher.search(draw(3), k=6, rerank=backwards)
    assert found.names == first.names[::-1] and asked == [((1, 6), None)]
    with pytest.raises(TypeError, match="name or a function, got 3"):
        searcher.search(draw(3), rerank=3)
    with pytest.raises(ValueError, match="expected a re-ranker of none, aqe"):
        searcher.search(draw(3), rerank="magic")


def test_weights_are_not_hashed_again_for_each_query(searcher, monkeypatch):
    hashed, fingerprint = [], RetrievalModel.fingerprint
    monkeypatch.setattr(
        RetrievalModel, "fingerprint", lambda self: hashed.append(1) or fingerprint(self)
    )
    for seed in range(3):
        searcher.search(textured(seed), rerank="verify-cells")
    assert hashed == []
    (cached,) = {key[0] for key in searcher.features._kept}
    assert cached == f"cells-{fingerprint(searcher.model)}"


def test_a_half_precision_model_searches(tmp_path, gem_model):
    half = copy.deepcopy(gem_model).bfloat16()
    for seed in range(3):
        textured(seed).save(tmp_path / f"{seed}.png")
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    index = DescriptorIndex.build(describe(half, paths, size=128), [p.name for p in paths])
    assert Searcher(index, half, 128).search(paths[2], k=1).names == ("2.png",)
