import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from spatial_retrieval.cli import main
from spatial_retrieval.facades.data import twin_facades
from spatial_retrieval.images import to_tensor
from spatial_retrieval.models import load_model
from spatial_retrieval.train.recipe import Recipe
from spatial_retrieval.train.recipe_data import cached_data, folders_found

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path / "cache"))
    photos = tmp_path / "photos"
    save_photos(photos)
    monkeypatch.setenv("PHOTOS", str(photos))
    value = {
        "model": {
            "layer": "stage5+stage4",
            "dim": 8,
            "p": 3.0,
            "context": [["refinement", {"nodes": None, "width": 8, "blocks": 1}]],
        },
        "data": {
            "landmarks": 4,
            "views": 2,
            "size": 96,
            "hide": 0.2,
            "photographs": "$PHOTOS",
            "instances": 3,
            "instance_views": 2,
            "instance_groups": 2,
            "teacher": "lite0-gem",
            "validation_landmarks": 2,
            "validation_folders": {"photos": str(photos)},
        },
        "train": {
            "output": str(tmp_path / "run"),
            "steps": 2,
            "groups": 2,
            "objective": {"keep": 5.0},
        },
    }
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


def test_rows_of_teacher_and_base_belong_to_their_items(recipe):
    value = json.loads(recipe.read_text())
    value["data"]["base"] = "lite0-gem"
    value["train"]["objective"] = {"keep": 5.0, "fused": 1.0}
    recipe.write_text(json.dumps(value))
    loaded = Recipe.load(recipe)
    model = load_model("lite0-gem", device="cpu")
    data = cached_data(folders_found(loaded.data), loaded.train, model.backbone)
    houses = twin_facades("train", landmarks=4, views=2, size=96)
    rows = model(torch.stack([to_tensor(houses.image(i)) for i in range(len(houses))]))
    torch.testing.assert_close(data.base[: len(houses)], rows.detach(), atol=2e-3, rtol=0)
    assert data.train.names[: len(houses)] == houses.names
    # three photographs, two views each, follow the houses; the teacher describes them alone
    assert len(data.base) == len(data.teacher) == len(data.train) == len(houses) + 6
    assert data.teacher[: len(houses)].isnan().all()
    torch.testing.assert_close(data.teacher[len(houses) :], data.base[len(houses) :])
    assert loaded.run().best_step


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


def save_sfm120k(root):
    cids = [f"{c}{i}" for c in ("aabbcc", "ddeeff", "001122") for i in range(2)]
    cids = [cid.rjust(16, "0") for cid in cids]
    part = {"cids": cids, "cluster": [5, 5, 9, 9, 2, 2], "qidxs": [0], "pidxs": [1]}
    folder = root / "sfm120k"
    folder.mkdir(parents=True)
    (folder / "retrieval-SfM-120k.pkl").write_bytes(pickle.dumps({"train": part, "val": part}, 2))
    return [folder / "ims" / c[-2:] / c[-4:-2] / c[-6:-4] / c for c in cids]


def save_gldv2(root):
    ids = [c * 16 for c in "012345"]
    folder = root / "gldv2-clean"
    folder.mkdir(parents=True)
    rows = [f"{7 + i},{ids[2 * i]} {ids[2 * i + 1]} {'f' * 16}" for i in range(3)]
    (folder / "train_clean.csv").write_text("\n".join(["landmark_id,images", *rows]) + "\n")
    return [folder / "train" / i[0] / i[1] / i[2] / f"{i}.jpg" for i in ids]


@pytest.mark.parametrize(("name", "save"), [("sfm120k", save_sfm120k), ("gldv2", save_gldv2)])
def test_a_published_set_trains_end_to_end(tmp_path, monkeypatch, name, save, capsys):
    from spatial_retrieval.train import augment

    monkeypatch.setattr(augment, "strong_augmentation", lambda: lambda x: x[:, :64, :64])
    rng = np.random.default_rng(0)
    paths = save(tmp_path)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (70, 90, 3), np.uint8)).save(path, format="jpeg")
    call = ["train", "--data", name, "--root", str(tmp_path), "-o", str(tmp_path / "run")]
    assert main([*call, "--steps", "1"]) == 0
    assert load_model(tmp_path / "run" / "model")(torch.rand(1, 3, 64, 64)).shape == (1, 512)
    for path in paths:
        path.unlink()
    assert main([*call, "--fresh"]) == 1  # before it trains
    assert f"get it with: spatial-retrieval data download {name}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        (["--config", "none.json"], 2, "none.json: no such recipe"),
        (["--data", "none"], 2, "none: no such folder"),
        (["--config", "empty.json", "--model", "x"], 2, "--model and --root belong to --data"),
        (["--data", "one", "--photographs", "x"], 2, "--photographs belongs to --config"),
        (["--data", "one", "--root", "x"], 2, "--root belongs to --data sfm120k or gldv2"),
        (["--data", "sfm120k", "--root", "one"], 1, "data download sfm120k"),
        (["--data", "gldv2", "--root", "one"], 1, "data download gldv2-clean"),
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


@pytest.fixture
def no_rendering(monkeypatch):
    """Rendering, which takes minutes, is an error."""

    def render(*_):
        raise AssertionError("rendered")

    monkeypatch.setattr("spatial_retrieval.facades.data._render", render)


def changed(recipe, part, **changes):
    value = json.loads(recipe.read_text())
    value[part] |= changes
    recipe.write_text(json.dumps(value))
    return recipe


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("data", {"photographs": "nowhere/at all"}, "nowhere/at all: no such folder; name another"),
        ("data", {"validation_folders": {"x": "nowhere"}}, "nowhere: no such folder"),
        ("data", {"instances": 9, "instance_groups": 8}, "at least 8 photographs .* got 4; name"),
        ("data", {"teacher": "nobody"}, "expected one of lite0-gem"),
        ("train", {"best_by": "photos/twin"}, "best_by among .*photos/map; got 'photos/twin'"),
        ("train", {"groups": 3}, "at most 2 groups of twins"),
        ("train", {"mine_every": 5}, "mine_every needs batches of one set"),
        ("train", {"objective": {"fused": 1.0}}, "fused needs a base model"),
    ],
)
def test_what_is_wrong_is_noticed_before_anything_is_rendered(
    recipe, no_rendering, part, changes, message
):
    with pytest.raises(ValueError, match=message):
        Recipe.load(changed(recipe, part, **changes)).run()


def test_photographs_are_replaced_or_left_out(recipe, tmp_path, capsys):
    save_photos(tmp_path / "mine")
    call = ["train", "--config", str(recipe), "--steps", "1", "-o", str(tmp_path / "run")]
    kept = tmp_path / "run" / "model" / "recipe.json"
    assert main([*call, "--photographs", str(tmp_path / "mine")]) == 0
    assert json.loads(kept.read_text())["data"]["photographs"] == str(tmp_path / "mine")
    assert main([*call, "--fresh", "--photographs", "none"]) == 0
    data = json.loads(kept.read_text())["data"]
    assert (data["photographs"], data["instances"], data["teacher"]) == ("", 0, "")
    assert main([*call, "--photographs", "nowhere"]) == 2
    assert "--photographs: nowhere: no such folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="got one without"):
        Recipe.load(
            changed(recipe, "data", photographs="", instances=0, teacher="")
        ).with_photographs("none")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_recipes_are_for_everybody(path, monkeypatch, caplog):
    monkeypatch.delenv("SPATIAL_RETRIEVAL_SHARED", raising=False)
    data = folders_found(Recipe.load(path).data)
    assert (data.photographs, data.teacher, data.landmarks) == ("", "", 600)
    assert "training without it" in caplog.text and "--photographs FOLDER" in caplog.text


def test_a_recipe_of_version_0_1_is_read(recipe):
    value = json.loads(recipe.read_text())
    value["data"] |= {"mirrored": False, "beside": "lite0-gem"}
    value["train"]["objective"] = {"beside": 1.0, "share": 0.85, "sos": 0.0}
    recipe.write_text(json.dumps(value))
    loaded = Recipe.load(recipe)
    assert loaded.data.base == "lite0-gem" and loaded.train.objective.base_weight == 0.85


def test_the_backbone_that_a_recipe_names_is_the_one_it_trains_on(recipe, monkeypatch):
    create = timm.create_model  # with random weights, for nothing is fetched here
    monkeypatch.setattr(timm, "create_model", lambda n, pretrained=0, **o: create(n, **o))
    value = json.loads(recipe.read_text())
    value["model"] = {"backbone": "resnet10t", "layer": "stage3", "dim": 8}
    recipe.write_text(json.dumps(value))
    result = Recipe.load(recipe).run()
    model = load_model(result.path, device="cpu")
    assert (model.backbone.channels, model.whitening.in_features) == (128, 128)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"landmarks": 3}, "an even number of landmarks"),
        ({}, "either a folder or a number"),
        ({"landmarks": 2, "instances": 5}, "both photographs and instances"),
        ({"landmarks": 2, "teacher": "lite0-gem"}, "photographs for the teacher"),
        ({"landmarks": 2, "mirrored": True}, "'mirrored' is no longer offered"),
        ({"folder": "x", "base": "lite0-gem"}, "rendered landmarks for a base model"),
        ({"landmark": 2}, "data: unknown key landmark"),
        ({"landmarks": "2"}, "data: landmarks: Input should be a valid integer"),
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
