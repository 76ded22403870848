"""``evaluate proxford`` on the miniature."""

import json
from dataclasses import replace

import numpy as np
import pytest

from spatial_retrieval.cli import main
from spatial_retrieval.datasets.pixel import load_pixel_labels
from spatial_retrieval.datasets.revisited import open_revisited
from spatial_retrieval.evaluate.cards import load_card
from spatial_retrieval.evaluate.pixel import localize_pairs
from spatial_retrieval.facades.miniature import miniature_roxford


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    root = tmp_path_factory.mktemp("miniature")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPATIAL_RETRIEVAL_CACHE", str(root / "cache"))
        miniature_roxford(root, landmarks=4, views=3, size=192)
    return root


def _pixel_card(capsys, root, *options):
    card = root / "card"
    argv = ["proxford", "--root", root, "--model", "lite0-gem", "--size", 192, "--card", card]
    code = main(["evaluate", *map(str, (*argv, *options))])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return load_card(root / "card.json"), printed.out


def test_proxford_is_ranked_localized_and_scored(miniature, capsys):
    card, out = _pixel_card(capsys, miniature)
    assert out.startswith("proxford · lite0-gem · ")
    assert {"mAP mask M", "mAP (official) box H", "mIoU mask M"} <= set(card.scores)
    # houses fill most of a photograph: far from perfect, but far from nothing, too
    assert 0.2 < card.scores["mIoU mask M"] < 1 and card.scores["mAP box M"] > 0
    assert card.dataset == "proxford" and "mIoU (official) mask" in out
    assert card.command.startswith("spatial-retrieval evaluate proxford")


def area(points):
    x, y = points.T
    return abs(np.sum(x * np.roll(y, 1) - y * np.roll(x, 1))) / 2


def test_regions_of_another_method_are_scored_instead(miniature, capsys):
    labels = load_pixel_labels(miniature, "roxford5k")
    largest = {pair: max(polygons, key=area) for pair, polygons in labels.items()}
    exact = {f"qimlist_{q}_imlist_{i}": points.tolist() for (q, i), points in largest.items()}
    (miniature / "exact.json").write_text(json.dumps(exact))
    card, out = _pixel_card(capsys, miniature, "--regions", miniature / "exact.json")
    assert f"{len(labels)} of {len(labels)} regions found" in out
    own, _ = _pixel_card(capsys, miniature)
    assert card.scores["mIoU mask M"] > 0.8 > own.scores["mIoU mask M"]
    assert "--regions" in card.command


def test_only_the_object_in_the_box_is_localized(miniature, gem_model):
    images = open_revisited("roxford5k", miniature)
    labels = load_pixel_labels(miniature, "roxford5k")
    pairs = [pair for pair in labels if pair[0] < 2]
    found = localize_pairs(gem_model, images, pairs, size=192)
    assert set(found) <= set(pairs) and found
    everything = replace(
        images.ground_truth, boxes=np.tile([0.0, 0, 384, 192], (len(images.queries), 1))
    )
    other = localize_pairs(gem_model, replace(images, ground_truth=everything), pairs, size=192)
    assert any(pair not in other or not np.array_equal(found[pair], other[pair]) for pair in found)
