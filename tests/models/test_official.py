"""Adopted checkpoints as models: saved, loaded, listed, asked by the command line."""

import json

import pytest
import torch
from official_toys import TOYS
from safetensors.torch import save_file

from spatial_retrieval.cli import main
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
