"""Adopted checkpoints as models: saved, loaded, listed, asked by the command line."""

import json

import numpy as np
import pytest
import torch
from official_toys import TOYS
from safetensors.torch import save_file

from spatial_retrieval import describe
from spatial_retrieval.cli import main
from spatial_retrieval.layers.whitening import pca_whitening
from spatial_retrieval.models import load_model
from spatial_retrieval.models.checkpoints import adopt, describe_adopted
from spatial_retrieval.models.official import adopt_file, official_model

IMAGES = torch.rand(2, 3, 70, 84, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("toy", TOYS)
def test_an_adopted_checkpoint_is_saved_and_loaded_like_any_model(toy, tmp_path):
    adopted = adopt(TOYS[toy]()[0])
    model = official_model(adopted)
    model.save_pretrained(tmp_path, include_backbone=True)
    again = load_model(tmp_path, device="cpu")
    with torch.inference_mode():
        for scales in ((1.0,), tuple(adopted.protocol.scales)):
            expected = describe_adopted(adopted, IMAGES, scales)
            torch.testing.assert_close(model(IMAGES, scales), expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(again(IMAGES, scales), expected, atol=1e-5, rtol=0)
    assert again.fingerprint() == model.fingerprint()


def test_the_command_writes_a_folder_with_a_card(tmp_path, capsys):
    save_file(
        {k: v.contiguous() for k, v in TOYS["megaloc"]()[0].items()}, tmp_path / "model.safetensors"
    )
    assert main(["adopt", str(tmp_path / "model.safetensors"), "-o", str(tmp_path / "m")]) == 0
    assert "MegaLoc" in capsys.readouterr().out
    card = json.loads((tmp_path / "m" / "card.json").read_text())
    assert card["weights_licence"].startswith("MIT") and card["protocol"]["size"] == 322
    assert load_model(tmp_path / "m", device="cpu").card == card
    assert main(["models", str(tmp_path / "m")]) == 0
    listed = capsys.readouterr().out
    assert str(tmp_path / "m") in listed and "lite0-spatial" in listed and "timm:" in listed
    assert main(["models", str(tmp_path)]) == 2
    assert main(["adopt", str(tmp_path / "none"), "-o", str(tmp_path / "n")]) == 2
    assert main(["adopt", __file__, "--as", "x", "-o", str(tmp_path / "n")]) == 2


def test_weights_alone_on_the_hub_are_adopted(tmp_path, monkeypatch):
    save_file(
        {k: v.contiguous() for k, v in TOYS["megaloc"]()[0].items()}, tmp_path / "model.safetensors"
    )
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    model = load_model("hub:gberton/MegaLoc", device="cpu")
    assert model.fingerprint() == adopt_file(tmp_path / "model.safetensors").fingerprint()


def test_what_was_learned_for_the_joined_scales_is_a_part_of_the_model(tmp_path):
    rng = np.random.default_rng(0)
    learned = {"m": rng.normal(size=(512, 1)), "P": rng.normal(size=(512, 512))}
    meta = {"Lw": {"retrieval-SfM-120k": {"ms": learned, "ss": learned}}}
    adopted = adopt(TOYS["cirtorch vgg"]()[0], meta)
    half = {**learned, "P": learned["P"][:30]}
    short = adopt(TOYS["cirtorch vgg"]()[0], {"Lw": {"retrieval-SfM-120k": {"ms": half}}})
    for one, dim in ((adopted, 512), (short, 30)):
        model = official_model(one)
        model.save_pretrained(tmp_path / str(dim))
        again = load_model(tmp_path / str(dim), device="cpu")
        with torch.inference_mode():
            expected = describe_adopted(one, IMAGES, one.protocol.scales)
            found = again(IMAGES, one.protocol.scales)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        assert again.dim == dim and describe(again, list(IMAGES)).shape == (2, dim)


def test_a_new_whitening_keeps_the_backbone_that_came_with_a_model(tmp_path):
    model = official_model(adopt(TOYS["eigenplaces"]()[0]))
    model.save_pretrained(tmp_path / "first")
    loaded = load_model(tmp_path / "first", device="cpu")
    length = loaded.head.whitening.in_features
    whitening = pca_whitening(torch.rand(40, length, generator=torch.Generator().manual_seed(0)))
    loaded.with_whitening(whitening, 6).save_pretrained(tmp_path / "second")
    again = load_model(tmp_path / "second", device="cpu")
    with torch.inference_mode():
        expected = loaded.with_whitening(whitening, 6)(IMAGES)
        torch.testing.assert_close(again(IMAGES), expected, atol=1e-5, rtol=0)
