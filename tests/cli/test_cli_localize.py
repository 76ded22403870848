import json

import numpy as np
import pytest
from pictures import draw
from PIL import Image
from test_cli_retrieval import fails

from spatial_retrieval.cli import main


@pytest.fixture
def pictures(tmp_path):
    """A drawing, a scene that holds it, and a scene that doesn't; paths in this order."""
    drawing = draw(0, 160, 128)
    scene, empty = draw(5, 320, 240), draw(6, 320, 240)
    scene.paste(drawing, (128, 96))
    query = Image.new("RGB", (240, 192), "gray")
    query.paste(drawing, (32, 32))
    for name, image in (("query", query), ("scene", scene), ("empty", empty)):
        image.save(tmp_path / f"{name}.png")
    return [tmp_path / f"{name}.png" for name in ("query", "scene", "empty")]


def run(capsys, *argv):
    assert main(["localize", *map(str, argv)]) == 0
    return capsys.readouterr().out


def test_json_masks_and_overlays(pictures, tmp_path, capsys):
    target = tmp_path / "out"
    printed = run(capsys, *pictures, "--box", "32,32,192,160", "-o", target, "--json")
    scene, empty = json.loads(printed)
    assert set(scene) == {"image", "score", "box", "regions", "mask"}
    assert scene["image"] == str(pictures[1]) and scene["box"] == scene["regions"][0]["box"]
    assert np.abs(np.array(scene["box"]) - [128, 96, 288, 224]).max() <= 24
    with Image.open(scene["mask"]) as mask:
        assert mask.size == (320, 240) and mask.mode == "L"
        assert set(np.unique(np.asarray(mask))) == {0, 255}
    with Image.open(target / "scene_overlay.png") as overlay:
        assert overlay.size == (320, 240)
    assert empty["score"] < scene["score"]
    assert sorted(p.name for p in target.iterdir()) == [
        "empty_mask.png",
        "empty_overlay.png",
        "scene_mask.png",
        "scene_overlay.png",
    ]


def test_the_threshold_leaves_nothing(pictures, capsys):
    call = (pictures[0], pictures[2], "--box", "32,32,192,160", "--threshold", "1")
    (empty,) = json.loads(run(capsys, *call, "--json"))
    assert empty["box"] is None and empty["regions"] == [] and empty["mask"] is None
    assert "not found" in run(capsys, *call)


def test_points_and_another_layer(pictures, capsys):
    marks = ("--point", "100,90", "--point", "60,60", "--not", "5,5", "--layer", "model")
    assert "scene.png" in run(capsys, *pictures[:2], *marks)


def test_two_photographs_of_one_name(pictures, tmp_path, capsys):
    run(capsys, *pictures[:2], pictures[1], "--box", "32,32,192,160", "-o", tmp_path / "out")
    assert (tmp_path / "out" / "scene_2_mask.png").is_file()


def test_calls_that_are_wrong(pictures, tmp_path, capsys):
    query, scene, _ = pictures
    assert "no such photograph" in fails(capsys, 2, "localize", query, tmp_path / "none.png")
    assert "photograph" in fails(capsys, 2, "localize", query, scene, "--point", "900,3")
    assert "box" in fails(capsys, 2, "localize", query, scene, "--box", "900,3,950,9")
    assert "X0 < X1" in fails(capsys, 2, "localize", query, scene, "--box", "9,3,9,9")
    assert "--layer" in fails(capsys, 2, "localize", query, scene, "--layer", "stage99")
    assert "--model" in fails(capsys, 2, "localize", query, scene, "--model", "nothing")
    (tmp_path / "bad.jpg").write_bytes(b"no photograph")
    assert "bad.jpg" in fails(capsys, 1, "localize", query, tmp_path / "bad.jpg")
