import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from pictures import draw
from PIL import Image

from spatial_retrieval.cli import main
from spatial_retrieval.datasets.folders import list_images
from spatial_retrieval.datasets.revisited import open_revisited
from spatial_retrieval.evaluate import runs
from spatial_retrieval.evaluate.cards import load_card
from spatial_retrieval.evaluate.folder import split_folder
from spatial_retrieval.evaluate.runs import run_revisited
from spatial_retrieval.facades.data import twin_facades

PLACES = 4


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """ROxford in miniature: the official layout and file types, queries that need their crop.

    Each query shows two places side by side; its box is around the one that is asked for.
    """
    root = tmp_path_factory.mktemp("data")
    jpg = root / "roxford5k" / "jpg"
    jpg.mkdir(parents=True)
    names = [f"place_{p}_{v}" for v in range(3) for p in range(PLACES)]
    for name in names:
        _, place, view = name.split("_")
        draw(int(place), 160, 120).save(jpg / f"{name}.jpg", quality=95 - 5 * int(view))
    queries, gnd = [], []
    for place in range(PLACES):
        both = Image.new("RGB", (320, 120))
        both.paste(draw(place, 160, 120), (160, 0))
        both.paste(draw((place + 1) % PLACES, 160, 120), (0, 0))
        both.save(jpg / f"query_{place}.jpg", quality=92)
        queries.append(f"query_{place}")
        ids = [i for i, name in enumerate(names) if name.startswith(f"place_{place}_")]
        easy = ids[:1] if place else []  # as in ROxford, not every query has an easy hit
        lists = {"easy": easy, "hard": ids[1:2], "junk": ids[2:]}
        gnd.append({"bbx": [160.4, 0, 319.6, 120], **lists})
    value = {"imlist": names, "qimlist": queries, "gnd": gnd}
    (root / "roxford5k" / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(value, 1))
    return root


def test_the_crop_is_what_finds_the_hits(root, gem_model):
    images = open_revisited("roxford5k", root)
    cropped = run_revisited(gem_model, images, size=320)
    whole = run_revisited(gem_model, images, size=320, crop=False)
    assert cropped.scores["M"].map == pytest.approx(1)
    assert whole.scores["M"].map < 0.9
    assert np.isnan(cropped.scores["E"].ap_per_query).tolist() == [True, False, False, False]
    assert cropped.ranking.ids.shape == (PLACES, 3 * PLACES)
    assert cropped.timing.seconds_per_image > 0 and cropped.timing.seconds_per_query > 0
    assert cropped.timing.index_bytes == 3 * PLACES * gem_model.dim * 4


def test_distractors_join_the_database(root, gem_model):
    images = open_revisited("roxford5k", root)
    more = replace(images, database=(*images.database, images.queries[0]))
    found = run_revisited(gem_model, more, size=320, crop=False)
    assert found.ranking.ids[0, 0] == 3 * PLACES
    assert (
        found.scores["M"].map
        < run_revisited(gem_model, images, size=320, crop=False).scores["M"].map
    )


def _run(capsys, *argv):
    code = main(["evaluate", *map(str, argv)])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return code, printed.out, printed.err


def test_roxford_end_to_end_as_a_program(root, tmp_path):
    run = [sys.executable, "-m", "spatial_retrieval", "evaluate", "roxford5k"]
    run += ["--root", root, "--size", "320", "--card", tmp_path / "card"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "roxford5k · lite0-spatial · queries cropped, at the scale of the database"
    assert lines[1].split() == ["E", "M", "H"]
    assert lines[2].split() == ["mAP", "100.00", "100.00", "100.00"]
    card = load_card(tmp_path / "card.json")
    assert (card.dataset, card.size) == ("roxford5k", 320)
    assert (card.queries, card.database_images) == (4, 12)
    assert card.scores["mAP M"] == pytest.approx(1) and card.scores["mP@10 H"] == pytest.approx(1)
    assert card.intervals["mAP H"] == pytest.approx((1, 1))
    assert card.query_crop.startswith("cropped") and card.ignored.startswith("removed")
    assert card.whitening.startswith("1024 dimensions") and "card" in card.training_data
    assert "evaluate roxford5k --model lite0-spatial" in card.command
    assert "--size 320" in card.command
    assert card.command in (tmp_path / "card.md").read_text()


def test_the_card_says_when_queries_were_not_cropped(root, tmp_path, capsys):
    options = ["--size", 320, "--scales", "1,0.5", "--no-query-crop", "--rerank", "aqe"]
    options += ["--training-data", "GLDv2-clean", "--card", tmp_path / "card.md"]
    code, out, _ = _run(capsys, "roxford5k", "--root", root, *options)
    assert code == 0
    assert "queries whole query images" in out
    card = load_card(tmp_path / "card.json")
    assert card.query_crop == "whole query images"
    assert card.scales == (1.0, 0.5) and card.rerank == "aqe"
    assert card.landmark_overlap.startswith("36 of 70")
    assert "--no-query-crop" in card.command


def test_a_missing_data_set_is_one_line_and_a_wrong_call(tmp_path, capsys, monkeypatch):
    code, _, err = _run(capsys, "roxford5k", "--root", tmp_path)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert f"spatial-retrieval data download roxford5k --root {tmp_path}" in err
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path / "cache"))
    code, _, err = _run(capsys, "rparis6k")
    assert code == 2 and f"--root {tmp_path / 'cache' / 'datasets'}" in err


def test_missing_distractors_are_a_wrong_call(root, capsys):
    code, _, err = _run(capsys, "roxford5k", "--root", root, "--distractors")
    assert code == 2 and "data download revisitop1m" in err


def test_a_hostile_ground_truth_fails_and_runs_nothing(tmp_path, capsys):
    folder = tmp_path / "roxford5k"
    folder.mkdir()
    (folder / "gnd_roxford5k.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    code, _, err = _run(capsys, "roxford5k", "--root", tmp_path)
    assert code == 1 and "os.system" in err and "nothing was executed" in err


def test_a_folder_is_scored_leave_one_out(photographs, tmp_path, capsys):
    code, out, _ = _run(capsys, photographs, "--size", 96, "--card", tmp_path / "card")
    assert code == 0
    assert "leave-one-out: 6 queries, 6 photographs" in out
    assert {line.split()[0] for line in out.splitlines()} >= {"mAP", "macro", "mP@1", "card"}
    card = load_card(tmp_path / "card.json")
    assert (card.dataset, card.protocol) == ("photographs", "leave-one-out")
    assert 0 < card.scores["mAP"] <= 1 and "mAP" in card.intervals


def test_query_files_are_asked_against_the_rest(photographs, capsys):
    for place in (0, 1):
        draw(place).save(photographs / f"place{place}" / "query_1.jpg", quality=90)
    code, out, _ = _run(capsys, photographs, "--size", 96, "--rerank", "aqe")
    assert code == 0
    assert "query* files against the rest: 2 queries, 6 photographs" in out


def test_rerankers_are_told_who_asks_where_queries_are_in_the_database(
    photographs, gem_model, tmp_path
):
    seen = []
    spy = lambda ranking, context: seen.append(context.own) or ranking  # noqa: E731

    def run():
        names = list_images(photographs)
        paths = [photographs / name for name in names]
        runs.run_folder(gem_model, paths, split_folder(names), size=64, rerank=spy)

    run()
    draw(0).save(photographs / "place0" / "query_1.jpg")
    run()
    few = twin_facades("test", landmarks=2, views=2, size=64, root=tmp_path)
    runs.run_twins(gem_model, few, size=64, baselines=False, rerank=spy)
    assert [None if own is None else own.tolist() for own in seen] == [
        [0, 1, 2, 3, 4, 5],
        None,
        [0, 1, 2, 3],
    ]


def test_twins_are_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path))
    monkeypatch.setenv("SPATIAL_RETRIEVAL_FAST", "1")
    code, out, _ = _run(capsys, "twins", "--size", 96, "--card", tmp_path / "card")
    assert code == 0
    assert "twin accuracy" in out
    card = load_card(tmp_path / "card.json")
    assert {"mAP", "mAP H", "twin accuracy"} <= set(card.scores)
    json.loads((tmp_path / "card.json").read_text(), parse_constant=pytest.fail)


def test_twins_are_reranked(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path))
    monkeypatch.setenv("SPATIAL_RETRIEVAL_FAST", "1")
    options = ["--size", 96, "--scales", "1,0.5", "--rerank", "verify", "--card", tmp_path / "card"]
    code, out, _ = _run(capsys, "twins", *options)
    assert code == 0
    for name in ("lite0-spatial + verify", "initial retrieval", "oracle, aligned"):
        assert sum(line.startswith(name) for line in out.splitlines()) == 3
    assert "verify against the initial retrieval: mAP " in out and " ms/query" in out
    card = load_card(tmp_path / "card.json")
    assert card.rerank == "verify" and "--rerank verify --scales 1,0.5" in card.command
    assert card.seconds_per_query > 0 and card.seconds_per_image > 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere"], "neither roxford5k, rparis6k, proxford, prparis or twins, nor a folder"),
        (["roxford5k", "--rerank", "magic"], "--rerank: expected a re-ranker"),
        (["roxford5k", "--root", "{root}", "--model", "magic"], "--model: expected one of"),
        (["twins", "--rerank", "magic"], "--rerank: expected a re-ranker"),
        (["twins", "--no-query-crop"], "--no-query-crop is for roxford5k"),
        (["proxford", "--distractors"], "--distractors is for roxford5k"),
        (["proxford", "--scales", "1,0.5"], "--scales is not for proxford"),
        (["proxford", "--regions", "nowhere.npy"], "nowhere.npy: no such file"),
        (["twins", "--regions", "x.npy"], "--regions is for proxford and prparis"),
        (["proxford", "--root", "{root}"], "oxford_pair2labelpath.npy is not below"),
        (["{empty}"], "holds no photograph"),
        (["{root}"], "at least 2 sub-folders"),
    ],
)
def test_wrong_calls_are_one_line(root, tmp_path, capsys, argv, message):
    argv = [word.format(root=root, empty=tmp_path) for word in argv]
    code, _, err = _run(capsys, *argv)
    assert code == 2 and message in err and len(err.splitlines()) == 1


def test_a_size_that_is_none_is_refused_by_the_parser(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "twins", "--size", "0"])
    assert stop.value.code == 2
    assert "at least 1" in capsys.readouterr().err
