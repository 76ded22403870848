import numpy as np
import pytest
import torch

from spatial_retrieval.evaluate.runs import run_twins
from spatial_retrieval.facades.baselines import (
    aligned_features,
    aligned_similarity,
    color_histograms,
    thumbnails,
)
from spatial_retrieval.facades.data import twin_facades
from spatial_retrieval.facades.scores import (
    cell_shuffle,
    evaluate_twins,
    score_ranking,
    score_twins,
)
from spatial_retrieval.features.extraction import describe
from spatial_retrieval.models import ModelConfig, build_model, load_model
from spatial_retrieval.models.backbone import build_backbone
from spatial_retrieval.ranking import Ranking


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Six houses, five small photographs of each (E M H E M)."""
    root = tmp_path_factory.mktemp("tiny")
    return twin_facades("test", landmarks=6, views=5, size=64, root=root)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """Sixteen houses, six photographs of each, at the benchmark's size."""
    return twin_facades("test", landmarks=16, views=6, root=tmp_path_factory.mktemp("city"))


@pytest.fixture(scope="module")
def gem():
    return load_model("lite0-gem", device="cpu")


def _plain_accuracy(similarity, data, kind=None, level=None):
    wins = []
    for q in range(len(data)):
        for p in range(len(data)):
            for t in range(len(data)):
                home = data.labels[q]
                if p == q or data.labels[p] != home or data.labels[t] != data.twin_of[home]:
                    continue
                if data.difficulty[p] != data.difficulty[t]:
                    continue
                if (kind and data.kind[home] != kind) or (level and data.difficulty[p] != level):
                    continue
                d = similarity[q, p] - similarity[q, t]
                wins.append(1.0 if d > 0 else 0.5 if d == 0 else 0.0)
    return float(np.mean(wins))


def _plain_ap(similarity, labels, q):
    others = sorted((i for i in range(len(labels)) if i != q), key=lambda i: -similarity[q, i])
    found, total, n = 0, 0.0, sum(labels[i] == labels[q] for i in others)
    for rank, i in enumerate(others):
        if labels[i] == labels[q]:
            before = found / rank if rank else 1.0
            found += 1
            total += (before + found / (rank + 1)) / 2 / n
    return total


def test_scores_equal_plain_loops(tiny):
    similarity = np.random.default_rng(0).integers(0, 12, (30, 30)).astype(float)  # with ties
    scores = score_twins(similarity, tiny)
    assert scores.accuracy().value == pytest.approx(_plain_accuracy(similarity, tiny))
    for kind in ("shuffle", "rows", "columns"):
        want = _plain_accuracy(similarity, tiny, kind=kind)
        assert scores.accuracy(kind=kind).value == pytest.approx(want)
    for level in "EMH":
        found = scores.accuracy(level=level).value
        if level == "H":  # one photograph each: only queries of other levels have a positive
            assert len(scores.triplets[tiny.difficulty[scores.triplets[:, 1]] == "H"]) == 6 * 4
        assert found == pytest.approx(_plain_accuracy(similarity, tiny, level=level))
    ap = [_plain_ap(similarity, tiny.labels, q) for q in range(30)]
    np.testing.assert_allclose(scores.ap, ap)
    assert scores.map().value == pytest.approx(np.mean(ap))
    hard = tiny.difficulty == "H"
    assert scores.map("H").value == pytest.approx(np.mean(np.array(ap)[hard]))


def test_positive_and_twin_are_equally_hard(tiny):
    query, positive, twin = score_twins(np.zeros((30, 30)), tiny).triplets.T
    assert (tiny.difficulty[positive] == tiny.difficulty[twin]).all()
    assert (tiny.labels[query] == tiny.labels[positive]).all() and (query != positive).all()
    assert (tiny.twin_of[tiny.labels[query]] == tiny.labels[twin]).all()


def test_the_limits(tiny):
    perfect = evaluate_twins(np.eye(6)[tiny.labels], tiny)
    assert perfect.accuracy().value == perfect.map().value == 1.0
    blind = evaluate_twins(np.eye(3)[tiny.labels // 2], tiny)  # knows the pair, not the house
    assert str(blind.accuracy()) == "50.0 [50.0, 50.0]"
    inverted = score_twins(-(np.eye(6)[tiny.labels] @ np.eye(6)[tiny.labels].T), tiny)
    assert inverted.accuracy().value == 0.0


def test_a_house_without_a_twin_has_no_triplets(tiny):
    odd = twin_facades("test", landmarks=1, views=5, size=64, root=tiny.root.parent)
    scores = evaluate_twins(np.eye(5), odd)
    assert scores.triplets.shape == (0, 3) and np.isnan(scores.accuracy().value)
    one = twin_facades("test", landmarks=2, views=1, size=64, root=tiny.root.parent)
    assert np.isnan(evaluate_twins(np.eye(2), one).ap).all()


def test_the_interval_is_over_pairs(tiny):
    by_pair = np.array([1.0, 0.0, 0.0])[tiny.labels // 2]  # one pair solved, two not
    vectors = np.where(by_pair[:, None] > 0, np.eye(6)[tiny.labels], np.eye(6)[tiny.labels // 2])
    interval = evaluate_twins(vectors, tiny).accuracy()
    assert (interval.low, interval.high) == (0.5, 1.0)
    assert interval.value == pytest.approx(2 / 3)


def test_the_report_has_a_row_for_each_method(tiny, gem, monkeypatch):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tiny.root.parents[1] / "cache"))
    few = twin_facades("test", landmarks=2, views=2, size=64)
    run = run_twins(gem, few, size=64)
    lines = run.scores.lines("lite0-gem")
    assert lines[0] == "Twin Façades test: 2 landmarks, 4 photographs"
    for name in ("lite0-gem", "colour histogram", "16×16 thumbnail", "oracle, aligned"):
        assert sum(line.startswith(name) for line in lines) == 3
    assert run.timing.seconds_per_image > 0 and run.timing.index_bytes == 4 * gem.dim * 4
    assert not run_twins(gem, few, size=64, baselines=False).scores.baselines


def test_a_reranked_run_has_the_initial_retrieval_beside_it(tiny, gem, monkeypatch, tmp_path):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path))
    plain = run_twins(gem, tiny, size=64, baselines=False)
    run = run_twins(gem, tiny, size=64, baselines=False, rerank="aqe")
    assert list(run.scores.baselines) == ["initial retrieval"]
    np.testing.assert_array_equal(run.first.ap, plain.scores.ap)
    assert not np.array_equal(run.scores.ap, plain.scores.ap)
    gains = run.scores.gain(run.first)
    assert gains[0].value == pytest.approx(run.scores.map().value - plain.scores.map().value)
    difference = run.scores.accuracy().value - plain.scores.accuracy().value
    assert gains[1].value == pytest.approx(difference)
    assert gains[0].low <= gains[0].value <= gains[0].high
    with pytest.raises(ValueError, match="expected a re-ranker of"):
        run_twins(gem, tiny, rerank="magic")


def test_an_order_is_scored_as_the_similarity_it_comes_from(tiny):
    similarity = np.random.default_rng(1).random((30, 30))
    ids = np.array([[i for i in np.argsort(-row) if i != q] for q, row in enumerate(similarity)])
    ranking = Ranking(ids, np.zeros(ids.shape))  # scores play no part
    found, expected = score_ranking(ranking, tiny), score_twins(similarity, tiny)
    np.testing.assert_array_equal(found.ap, expected.ap)
    np.testing.assert_array_equal(found.correct, expected.correct)
    with pytest.raises(ValueError, match=r"shape \(30, 29\), got \(30, 5\)"):
        score_ranking(Ranking(ids[:, :5], np.zeros((30, 5))), tiny)
    ids[3, 0] = 3
    with pytest.raises(ValueError, match="left out of its own hits"):
        score_ranking(Ranking(ids, np.zeros(ids.shape)), tiny)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: score_twins(np.zeros((3, 3)), d), r"shape \(30, 30\), got \(3, 3\)"),
        (lambda d: score_twins(np.full((30, 30), np.nan), d), "finite"),
        (lambda d: evaluate_twins(np.zeros((4, 8)), d), r"\(30, D\), got \(4, 8\)"),
        (lambda d: evaluate_twins(np.zeros(30), d), r"\(30, D\), got \(30,\)"),
    ],
)
def test_bad_input_is_named(call, message, tiny):
    with pytest.raises(ValueError, match=message):
        call(tiny)


def test_gem_does_not_see_that_cells_were_shuffled(gem, tiny):
    assert cell_shuffle(gem, tiny.paths[:3], size=64).min() > 1 - 1e-5


def test_a_descriptor_with_context_sees_that_cells_were_shuffled():
    torch.manual_seed(0)
    layer = ("convolutions", {"width": 8, "start": 0.5})
    model = build_model(ModelConfig(context=(layer,)))
    for parameter in model.context.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    found = cell_shuffle(model, [torch.rand(3, 160, 192), torch.rand(3, 160, 160)])
    assert found.shape == (2,) and found.max() < 1 - 1e-4


def test_baseline_descriptors(tiny):
    histogram, tiny_copies = color_histograms(tiny), thumbnails(tiny)
    assert histogram.shape == (30, 216) and tiny_copies.shape == (30, 768)
    for rows in (histogram, tiny_copies):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1)
    pixels = np.asarray(tiny.image(3)).reshape(-1, 3)
    share = np.mean((pixels // 43 == (3, 2, 1)).all(axis=1))  # 256 / 6 = 42.67
    near = histogram[3].reshape(6, 6, 6)[3, 2, 1] ** 2
    assert near == pytest.approx(share, abs=0.02)


def test_aligned_similarity_equals_plain_loops():
    rng = np.random.default_rng(0)
    features = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(3, 4, 5))), dim=2)
    visible = torch.from_numpy(rng.random((3, 4)))
    visible[2] = 0  # nothing of it is seen
    found = aligned_similarity(features, visible)
    for i in range(3):
        for j in range(3):
            w = [float(visible[i, g] * visible[j, g]) for g in range(4)]
            s = [float(features[i, g] @ features[j, g]) for g in range(4)]
            want = sum(a * b for a, b in zip(w, s, strict=True)) / max(sum(w), 1e-6)
            assert found[i, j] == pytest.approx(want)


def test_aligned_features_are_looked_up_through_the_homography(tiny):
    """With a network that returns the image itself, they are the pixels at those places."""

    class Identity(torch.nn.Module):
        mean = torch.zeros(3)

        def maps(self, images, layers):
            return [images]

    features, visible = aligned_features(tiny, grid=4, backbone=Identity())
    assert features.shape == (30, 16, 3) and visible.shape == (30, 16)
    looked_up = np.array([_pixels(tiny, i, 4) for i in range(30)])  # (30, 16, 3)
    centred = looked_up - looked_up.mean(axis=(0, 1))
    cosine = (centred * features.numpy()).sum(-1) / np.linalg.norm(centred, axis=-1)
    assert np.median(cosine) > 0.97  # nearest pixel against bilinear


def test_aligned_features_are_computed_where_the_backbone_is(tiny):
    backbone = build_backbone(layer="stage4", pretrained=False).to("meta")
    with pytest.raises(NotImplementedError, match="meta tensor"):  # it computes nothing
        aligned_features(tiny, grid=4, backbone=backbone)


def _pixels(data, i, grid):
    """The pixels of photograph i that are nearest to the places of the lattice."""
    w, h = data.canvas_sizes[data.labels[i]]
    image, steps = np.asarray(data.image(i)) / 255, (np.arange(grid) + 0.5) / grid
    found = []
    for y in steps * h:
        for x in steps * w:
            u, v, s = data.homographies[i] @ [x, y, 1]
            inside = 0 <= u / s < 64 and 0 <= v / s < 64
            found.append(image[int(v / s), int(u / s)] if inside else np.zeros(3))
    return found


def test_twins_can_be_told_apart_but_not_by_statistics(city, gem):
    oracle = score_twins(aligned_similarity(*aligned_features(city)), city)
    assert oracle.accuracy().value > 0.8
    for kind in ("shuffle", "rows", "columns"):
        assert oracle.accuracy(kind=kind).value > 0.8
    pooled = evaluate_twins(describe(gem, city.paths, size=448), city)
    assert 0.45 <= pooled.accuracy().value <= 0.60
    assert 0.44 <= evaluate_twins(color_histograms(city), city).accuracy().value <= 0.56
    assert 0.44 <= evaluate_twins(thumbnails(city), city).accuracy().value <= 0.62
    assert oracle.map().value > pooled.map().value
