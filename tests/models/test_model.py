import json

import pytest
import torch
from torch import nn

from spatial_retrieval import ModelConfig, build_model, embedded_models, load_model
from spatial_retrieval.layers.pooling import gem
from spatial_retrieval.layers.whitening import pca_whitening
from spatial_retrieval.models import RetrievalModel, choose_device

SMALL = ModelConfig(layer="stage2", dim=8)


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))


def test_the_plain_model_is_backbone_gem_and_unit_length(images):
    model = build_model(ModelConfig(layer="stage3"))
    with torch.inference_mode():
        expected = nn.functional.normalize(gem(model.backbone(images), 3.0), dim=1)
        torch.testing.assert_close(model(images), expected)
        torch.testing.assert_close(model.feature_map(images), model.backbone(images))
    assert model.dim == 40


def test_every_embedded_model_describes(images):
    assert "lite0-gem" in embedded_models()
    for name in embedded_models():
        model = load_model(name, device="cpu")
        with torch.inference_mode():
            rows = model(images)
        assert rows.shape == (2, model.dim)
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))
        assert not model.training


def test_a_batch_is_described_as_one_by_one(gem_model, images):
    with torch.inference_mode():
        one_by_one = torch.cat([gem_model(image[None]) for image in images])
        torch.testing.assert_close(gem_model(images), one_by_one, atol=1e-5, rtol=1e-4)


def test_scales_are_averaged_and_normalised(gem_model, images):
    with torch.inference_mode():
        half = nn.functional.interpolate(
            images, size=(32, 24), mode="bilinear", align_corners=False, antialias=True
        )
        expected = nn.functional.normalize(gem_model(images) + gem_model(half), dim=1)
        torch.testing.assert_close(gem_model(images, (1.0, 0.5)), expected)
    with pytest.raises(ValueError, match="at least one scale"):
        gem_model(images, ())
    with pytest.raises(ValueError, match="scales > 0, got -1"):
        gem_model(images, (-1.0,))


def test_whitening_replaces_the_end(images):
    model = build_model(ModelConfig(layer="stage2"))
    with torch.inference_mode():
        plain = model(images)
        whitening = pca_whitening(torch.cat([plain, torch.rand(30, 24)]))
        whitened = model.with_whitening(whitening, dim=5)
        expected = whitening.apply(plain, 5)
        torch.testing.assert_close(whitened(images), expected, atol=1e-4, rtol=1e-3)
    assert whitened.config.dim == whitened.dim == 5
    assert model.config.dim is None and model.dim == 24


def test_context_layers_run_in_the_order_given(images):
    context = (("smoothing", {"kernel_size": 3}), ("attention", {"reduction": 4}))
    model = build_model(ModelConfig(layer="stage2", context=context))
    with torch.inference_mode():
        stages = model.stages(images)
        assert list(stages) == ["backbone", "smoothing", "attention"]
        torch.testing.assert_close(stages["smoothing"], model.context.smoothing(stages["backbone"]))
        torch.testing.assert_close(model.feature_map(images), stages["attention"])


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ((("smooth", {}),), "smoothing, refinement, attention or convolutions, got 'smooth'"),
        ((("smoothing", {"kernelsize": 3}),), "context layer 'smoothing'.*kernelsize"),
        ((("smoothing", {}), ("smoothing", {})), "at most once"),
    ],
)
def test_a_wrong_configuration_is_refused(context, message):
    with pytest.raises(ValueError, match=message):
        build_model(ModelConfig(layer="stage1", context=context), pretrained=False)


@pytest.mark.parametrize("include_backbone", [False, True])
def test_what_is_saved_is_loaded(tmp_path, images, include_backbone):
    model = build_model(SMALL)
    model.save_pretrained(tmp_path / "m", include_backbone=include_backbone)
    again = load_model(tmp_path / "m", device="cpu")
    assert again.config == SMALL and again.fingerprint() == model.fingerprint()
    with torch.inference_mode():
        torch.testing.assert_close(again(images), model(images), rtol=0, atol=0)
    small = (tmp_path / "m" / "model.safetensors").stat().st_size < 10_000
    assert small is not include_backbone


def test_a_trained_backbone_comes_back_trained(tmp_path, images):
    model = build_model(SMALL)
    with torch.no_grad():
        model.backbone.network.conv_stem.weight.mul_(0.5)
    model.save_pretrained(tmp_path, include_backbone=True)
    torch.testing.assert_close(
        load_model(tmp_path, device="cpu").backbone.network.conv_stem.weight,
        model.backbone.network.conv_stem.weight,
    )


def test_the_configuration_survives_json():
    config = ModelConfig(context=(("smoothing", {"dilations": [1, 2]}),), dim=64)
    from dataclasses import asdict

    assert ModelConfig.from_json(json.loads(json.dumps(asdict(config)))) == config


def test_the_fingerprint_depends_on_configuration_and_weights():
    model = build_model(SMALL)
    before = model.fingerprint()
    assert before == model.fingerprint()
    with torch.no_grad():
        model.whitening.bias[0] += 1
    assert model.fingerprint() != before
    assert build_model(ModelConfig(layer="stage2", p=2.0)).fingerprint() != before


def test_damaged_models_are_refused(tmp_path):
    model = build_model(SMALL)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())

    def written(**changes):
        (tmp_path / "config.json").write_text(json.dumps(config | changes))

    written(dim=9)
    with pytest.raises(ValueError, match="not of this configuration"):
        load_model(tmp_path)
    written(dim=None)
    with pytest.raises(ValueError, match="whitening.bias differs"):
        load_model(tmp_path)
    written(surprise=1)
    with pytest.raises(ValueError, match="unknown keys in a model's config: surprise"):
        load_model(tmp_path)
    written()
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match="no readable model"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="no readable model"):
        load_model(tmp_path)


def test_an_unknown_name_lists_the_known_ones(monkeypatch):
    with pytest.raises(ValueError, match="expected one of .*lite0-gem.* got 'lite0-gen'"):
        load_model("lite0-gen")

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(ValueError, match="embedded models: .*lite0-gem"):
        load_model("somebody/something")


def test_a_hub_model_is_fetched_and_loaded(tmp_path, monkeypatch):
    build_model(SMALL).save_pretrained(tmp_path)
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **_: asked.append(name) or str(tmp_path)
    )
    assert load_model("owner/name", device="cpu").config == SMALL
    assert asked == ["owner/name"]


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type in (best, "mps")


def test_modules_are_passed_not_flagged():
    plain = build_model(ModelConfig(layer="stage1"), pretrained=False)
    assert isinstance(plain.whitening, nn.Identity) and len(plain.context) == 0
    assert isinstance(plain, RetrievalModel)


@pytest.fixture(scope="module")
def fused():
    plain = build_model(ModelConfig(layer="stage3", dim=6))
    own = build_model(ModelConfig(layer="stage2", context=(("smoothing", {}),), dim=8))
    return own, plain, own.beside(plain, weight=0.3)


def test_a_plain_part_beside_shares_the_similarity(fused, images):
    own, plain, both = fused
    with torch.inference_mode():
        rows = both(images)
        assert both.dim == rows.shape[1] == 14
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))
        expected = 0.3 * plain(images) @ plain(images).T + 0.7 * own(images) @ own(images).T
        torch.testing.assert_close(rows @ rows.T, expected)
        torch.testing.assert_close(both.feature_map(images), own.feature_map(images))


@pytest.mark.parametrize("half", [False, True])
def test_a_plain_part_is_saved_and_loaded(fused, images, tmp_path, half):
    both = fused[2]
    both.save_pretrained(tmp_path, half=half)
    again = load_model(tmp_path, device="cpu")
    assert again.config == both.config
    with torch.inference_mode():
        found, expected = again(images), both(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=2e-3 if half else 0, rtol=0)


def test_only_a_plain_model_on_the_same_backbone_stands_beside(fused):
    own, plain, _ = fused
    with pytest.raises(ValueError, match="without context layers"):
        plain.beside(own, weight=0.5)
    with pytest.raises(ValueError, match="weight from 0 to 1, got 2"):
        own.beside(plain, weight=2)
    config = ModelConfig(layer="stage1", beside=own.config)
    with pytest.raises(ValueError, match="expected a plain model beside"):
        build_model(config, pretrained=False)
