import json
import subprocess
from dataclasses import fields, replace

import pytest

from spatial_retrieval.evaluate import cards as module
from spatial_retrieval.evaluate.cards import (
    ResultCard,
    compare,
    differences,
    environment,
    load_card,
)
from spatial_retrieval.evaluate.published import PUBLISHED, landmark_overlap

CARD = ResultCard(
    dataset="roxford5k",
    protocol="revisited",
    model="lite0-gem",
    scores={"mAP E": float("nan"), "mAP M": 0.3456, "mAP H": 0.12},
    query_crop="cropped to the box, scale of the database kept",
    ignored="removed before ranks are counted",
    size=1024,
    scales=(1.0, 0.5),
    rerank="none",
    whitening="none",
    training_data="ImageNet-1k",
    landmark_overlap="unknown",
    seed=0,
    queries=70,
    database_images=4993,
    seconds_per_query=0.0012,
    seconds_per_image=0.05,
    index_bytes=123,
    command="spatial-retrieval evaluate roxford5k",
    intervals={"mAP M": (0.31, 0.38)},
)


def test_a_card_comes_back_from_json(tmp_path):
    page, data = CARD.save(tmp_path / "deep" / "card.md")
    assert (page.name, data.name) == ("card.md", "card.json")
    assert json.loads(data.read_text())["scores"]["mAP E"] is None
    again = load_card(data)
    assert again.scores["mAP E"] != again.scores["mAP E"]
    assert replace(again, scores=CARD.scores) == CARD


@pytest.mark.parametrize("name", ["card", "card.json", "card.md", "a.b"])
def test_both_files_are_written_whatever_suffix_is_asked(tmp_path, name):
    page, data = CARD.save(tmp_path / name)
    stem = "a.b" if name == "a.b" else "card"
    assert {p.name for p in tmp_path.iterdir()} == {f"{stem}.md", f"{stem}.json"}
    assert page.exists() and data.exists()


def test_the_page_states_every_condition():
    page = CARD.markdown()
    assert "| mAP M | 34.56 (31.0 – 38.0) |" in page
    assert "| mAP H | 12.00 |" in page
    for field in fields(CARD):
        value = getattr(CARD, field.name)
        if isinstance(value, str):
            assert value in page, field.name
    for text in ("1024 px", "1, 0.5", "70, 4993", "1.2 ms", "50 ms", "123 bytes", "| seed | 0 |"):
        assert text in page
    for name in ("python", "torch", "commit"):
        assert f"| {name} |" in page


def test_text_cannot_break_the_table():
    page = replace(CARD, whitening="a | b\nc").markdown()
    assert "| whitening | a \\| b c |" in page


def test_the_commit_is_that_of_the_code():
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    found = environment()["commit"]
    assert found.removesuffix(" + changes") == commit or found.startswith("unknown")


def test_no_commit_without_git(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(module.subprocess, "run", missing)
    assert environment()["commit"].startswith("unknown")


def test_compare_marks_what_is_published():
    table = compare([CARD, replace(CARD, dataset="rparis6k", rerank="aqe")])
    assert "| lite0-gem | 34.6 | 12.0 |  |  | measured |" in table
    assert "| lite0-gem + aqe |  |  | 34.6 | 12.0 | measured |" in table
    assert "| SOLAR ResNet101, GL18 | 69.9 | 47.9 | 81.6 | 64.5 | published |" in table
    assert table.count("published") == len(PUBLISHED)
    assert "published" not in compare([CARD], published=False)


def test_compare_shows_other_data_sets_in_a_table_of_their_own():
    scores = {"mAP": 0.5, "macro mAP": 0.4, "mP@1": 0.9}
    card = replace(CARD, dataset="photos", scores=scores, intervals={"mAP": (0.4, 0.6)})
    table = compare([card])
    assert "| lite0-gem | photos | mAP 50.00 (40.0 – 60.0) · macro mAP 40.00 |" in table
    assert "published" not in table
    both = compare([card, CARD])
    assert "measured" in both and "photos" in both
    odd = replace(card, scores={"IoU": 0.25})
    assert "IoU 25.00" in compare([odd])
    assert compare([]).count("published") == len(PUBLISHED)


def test_conditions_that_differ_are_said():
    other = replace(CARD, query_crop="none: whole query images", size=480)
    notes = differences([CARD, other, replace(CARD, dataset="rparis6k", size=512)])
    assert len(notes) == 2
    assert notes[0].startswith("Not comparable on roxford5k: query crop is cropped")
    assert "size is 1024 | 480" in notes[1]
    assert notes[0] in compare([CARD, other])
    assert differences([CARD, CARD]) == []


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        ("protocol", "another"),
        ("query_crop", "another"),
        ("ignored", "another"),
        ("size", 31),
        ("scales", (1.0,)),
        ("database_images", 7),
    ],
)
def test_each_condition_alone_makes_cards_incomparable(condition, value):
    (note,) = differences([CARD, replace(CARD, **{condition: value})])
    assert f"{condition.replace('_', ' ')} is " in note and str(value) in note
    assert note in compare([CARD, replace(CARD, **{condition: value})])


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"dataset": 1}'])
def test_other_files_are_no_cards(tmp_path, content):
    path = tmp_path / "card.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"card\.json: no "):
        load_card(path)


def test_a_card_with_an_unknown_key_is_refused(tmp_path):
    _, data = CARD.save(tmp_path / "card")
    data.write_text(json.dumps({**json.loads(data.read_text()), "extra": 1}))
    with pytest.raises(ValueError, match=r"no result card \(extra\)"):
        load_card(data)


def test_overlap_is_told_where_it_is_known():
    assert landmark_overlap("GLDv2-clean", "rparis6k").startswith("38 of 70")
    assert landmark_overlap("GLDv2-clean", "roxford5k").startswith("36 of 70")
    assert landmark_overlap("sfm120k", "roxford5k") == "none"
    assert landmark_overlap("sfm120k", "photos") == "unknown"
