import json

import numpy as np
import pytest
import torch
from PIL import Image

from spatial_retrieval.cli import main
from spatial_retrieval.facades.data import twin_facades
from spatial_retrieval.images import to_tensor
from spatial_retrieval.models import load_model
from spatial_retrieval.train.recipe import Recipe


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path / "cache"))
    photos = tmp_path / "photos"
    save_photos(photos)
    monkeypatch.setenv("PHOTOS", str(photos))
    value = {
        "model": {
            "layer": "stage5+stage4", "dim": 8, "p": 3.0,
            "context": [["refinement", {"nodes": None, "width": 8, "blocks": 1}]],
        },
        "data": {
            "landmarks": 4, "views": 2, "size": 96, "mirrored": True, "hide": 0.2,
            "photographs": "$PHOTOS", "instances": 3, "instance_views": 2, "instance_groups": 2,
            "teacher": "lite0-gem",
            "validation_landmarks": 2, "validation_folders": {"photos": str(photos)},
        },
        "train": {
            "output": str(tmp_path / "run"), "steps": 2, "groups": 2, "objective": {"keep": 5.0},
        },
    }  # fmt: skip
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(value))
    return path


def save_photos(folder, sites=("a", "b"), count=2):
    rng = np.random.default_rng(0)
    for site in sites:
        (folder / site).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 255, (70, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / site / f"{i}.png")


def test_a_recipe_trains_a_model_that_loads_and_is_kept_beside_it(recipe, tmp_path, capsys):
    assert main(["train", "--config", str(recipe)]) == 0
    out = capsys.readouterr()
    assert out.out.startswith("2 steps in") and "twins/twin" in out.err
    model = load_model(tmp_path / "run" / "model")
    assert model(torch.rand(1, 3, 96, 96)).shape == (1, 8)
    kept = json.loads((tmp_path / "run" / "model" / "recipe.json").read_text())
    assert kept["data"]["landmarks"] == 4 and kept["train"]["steps"] == 2
    (tmp_path / "again.json").write_text(json.dumps(kept))
    assert Recipe.load(tmp_path / "again.json").train == Recipe.load(recipe).train
    # The caches are there now, and a finished run is only read.
    assert main(["train", "--config", str(recipe)]) == 0
    assert main(["train", "--config", str(recipe), "--steps", "3"]) == 1
    assert "another configuration (steps: expected 3, got 2)" in capsys.readouterr().err
    assert main(["train", "--config", str(recipe), "--steps", "1", "--fresh"]) == 0


def test_a_recipe_trains_beside_a_plain_model(recipe, capsys):
    value = json.loads(recipe.read_text())
    value["data"] |= {"mirrored": False, "beside": "lite0-gem"}
    value["train"]["objective"] = {"keep": 5.0, "beside": 1.0}
    recipe.write_text(json.dumps(value))
    assert main(["train", "--config", str(recipe)]) == 0
    data, plain = Recipe.load(recipe)._maps(False), load_model("lite0-gem")
    houses = twin_facades("train", landmarks=4, views=2, size=96)
    rows = plain(torch.stack([to_tensor(houses.image(i)) for i in range(len(houses))]))
    torch.testing.assert_close(data.plain[: len(houses)], rows.detach(), atol=2e-3, rtol=0)
    assert data.train.names[: len(houses)] == houses.names and len(data.plain) == len(data.train)


def test_a_folder_trains_end_to_end(tmp_path, capsys, monkeypatch):
    from spatial_retrieval.train import augment

    monkeypatch.setattr(augment, "strong_augmentation", lambda: lambda x: x[:, :64, :64])
    save_photos(tmp_path / "photos", sites=("a", "b", "c"))
    call = ["train", "--data", str(tmp_path / "photos"), "-o", str(tmp_path / "run")]
    assert main([*call, "--steps", "1"]) == 0
    trained, plain = load_model(tmp_path / "run" / "model"), load_model("lite0-gem")
    image = torch.rand(1, 3, 64, 64)
    assert not torch.allclose(trained.backbone(image), plain.backbone(image), atol=1e-6)
    assert trained(image).shape == plain(image).shape


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        (["--config", "none.json"], 2, "none.json: no such recipe"),
        (["--data", "none"], 2, "none: no such folder"),
        (["--config", "empty.json", "--model", "x"], 2, "--model belongs to --data"),
        (["--config", "empty.json"], 1, 'empty.json: expected JSON with "model"'),
        (["--data", "one"], 1, "at least two labels, got 1"),
        (["--data", "one", "--model", "nothing"], 2, "--model: expected one of"),
    ],
)
def test_wrong_calls(tmp_path, monkeypatch, capsys, call, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.json").write_text("{}")
    save_photos(tmp_path / "one", sites=("a",))
    assert main(["train", *call]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"landmarks": 3}, "an even number of landmarks"),
        ({}, "either a folder or a number"),
        ({"landmarks": 2, "instances": 5}, "both photographs and instances"),
        ({"landmarks": 2, "teacher": "lite0-gem"}, "photographs for the teacher"),
        ({"landmarks": 2, "mirrored": True, "beside": "lite0-gem"}, "not mirrored"),
        ({"landmark": 2}, "unknown keys .*landmark"),
    ],
)
def test_bad_recipes(tmp_path, data, message):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"model": {}, "data": data, "train": {"output": "x"}}))
    with pytest.raises(ValueError, match=message):
        Recipe.load(path)


def test_the_seed_decides_the_start(recipe, tmp_path):
    twice = [Recipe.load(recipe, steps=1, output=str(tmp_path / name)) for name in "ab"]
    first, second = (load_model(one.run().path) for one in twice)
    for a, b in zip(first.context.parameters(), second.context.parameters(), strict=True):
        assert torch.equal(a, b)
