"""A box of a large photograph: what is decoded, and which query it belongs to."""

import json

import numpy as np
import pytest
from PIL import Image
from reranking_toys import textured

from spatial_retrieval.datasets.revisited import open_revisited
from spatial_retrieval.evaluate.runs import run_revisited
from spatial_retrieval.images import crop_query, load_image
from spatial_retrieval.rerank import LocalFeatures, LocalMethod, Verifier, sift

LARGE = (1600, 1200)  # pixels: JPEG decodes at a half or a quarter where less is enough
BOXES = ((820.0, 100.0, 1590.0, 1100.0), (10.0, 100.0, 780.0, 1100.0))  # right, left


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """ROxford's layout: two large queries of two scenes side by side, boxes around different ones.

    Scene 0 stands on the left, scene 1 on the right; query 0 asks for the right one, query 1 for
    the left one.
    """
    root = tmp_path_factory.mktemp("large")
    jpg = root / "roxford5k" / "jpg"
    jpg.mkdir(parents=True)
    scenes = [textured(seed, (800, 1200)) for seed in (0, 1)]
    for i, scene in enumerate(scenes):
        scene.save(jpg / f"scene_{i}.jpg", quality=95)
    both = Image.new("RGB", LARGE)
    both.paste(scenes[0], (0, 0))
    both.paste(scenes[1], (800, 0))
    for q in (0, 1):
        both.save(jpg / f"query_{q}.jpg", quality=95)
    gnd = [
        {"bbx": BOXES[0], "easy": [1], "hard": [], "junk": []},
        {"bbx": BOXES[1], "easy": [0], "hard": [], "junk": []},
    ]
    names = {"imlist": ["scene_0", "scene_1"], "qimlist": ["query_0", "query_1"], "gnd": gnd}
    (root / "roxford5k" / "gnd_roxford5k.json").write_text(json.dumps(names))
    return root


def inliers(verifier):
    found = [[verifier.query(q, i) for i in (0, 1)] for q in (0, 1)]
    return np.array([[len(matches) for matches in row] for row in found])


def test_each_query_is_verified_by_what_is_in_its_own_box(root):
    images = open_revisited("roxford5k", root)
    found = inliers(Verifier(sift(), images.database, images.queries, BOXES))
    assert found[0, 1] >= 20 and found[1, 0] >= 20
    assert found[0, 0] == found[1, 1] == 0
    whole = inliers(Verifier(sift(), images.database, images.queries))
    assert (whole >= 20).all()


def test_roxford_is_verified_inside_the_query_boxes(root, gem_model, monkeypatch, tmp_path):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path))
    images, seen = open_revisited("roxford5k", root), {}

    def look(ranking, context):
        seen[len(seen)] = inliers(context.verifier("sift", sift()))
        return ranking

    for crop in (True, False):
        run_revisited(gem_model, images, size=128, crop=crop, rerank=look)
    assert seen[0][0, 0] == seen[0][1, 1] == 0 and (seen[1] >= 20).all()


@pytest.mark.parametrize("box", BOXES)
def test_local_features_of_a_box_are_those_of_the_photograph_cut_to_it(root, box):
    path = root / "roxford5k" / "jpg" / "query_0.jpg"
    seen = []

    def extract(image):
        seen.append(np.asarray(image, dtype=float))
        return LocalFeatures(np.empty((0, 2)), np.empty((0, 4)), image.size)

    LocalMethod("", extract, None, size=200).features(path, box)
    expected = np.asarray(crop_query(load_image(path), box, 200), dtype=float)
    assert seen[0].shape == expected.shape
    assert abs(seen[0] - expected).mean() < 2


def test_a_whole_large_photograph_is_decoded_small_and_shrunk(root):
    path = root / "roxford5k" / "jpg" / "query_0.jpg"
    found = sift(size=200).features(path)
    assert found.size == (200, 150)
    assert found.points.max(axis=0)[0] > 150 and (found.points < found.size).all()
