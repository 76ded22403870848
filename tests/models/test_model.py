import copy
import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from spatial_retrieval import ModelConfig, build_model, embedded_models, load_model
from spatial_retrieval.layers.pooling import GeM, gem
from spatial_retrieval.layers.rebuildable import Rebuildable
from spatial_retrieval.layers.second_order import SecondOrderPooling
from spatial_retrieval.layers.smoothing import LearnableSmoothing
from spatial_retrieval.layers.whitening import pca_whitening
from spatial_retrieval.models import Branch, Head, RetrievalModel, choose_device, fuse
from spatial_retrieval.models.modules import build_module, describe_module

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
    assert whitened.dim == 5 and whitened.is_whitened
    assert model.dim == 24 and not model.is_whitened


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
    assert again.describe() == model.describe() and again.fingerprint() == model.fingerprint()
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

    written(base_weight=2)
    with pytest.raises(ValueError, match="base_weight from 0 to 1"):
        load_model(tmp_path)
    longer = {"in_features": 24, "out_features": 9, "class": "torch.nn.modules.linear.Linear"}
    written(head=config["head"] | {"whitening": longer})
    with pytest.raises(ValueError, match="not of this configuration"):
        load_model(tmp_path)
    none = {"class": "torch.nn.modules.linear.Identity"}
    written(head=config["head"] | {"whitening": none})
    with pytest.raises(ValueError, match="whitening.bias differs"):
        load_model(tmp_path)
    written(head={"branches": []})
    with pytest.raises(ValueError, match="at least one branch|whitening"):
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
    with pytest.raises(ValueError, match="go online once.* embedded models: .*lite0-gem"):
        load_model("hub:somebody/something")
    with pytest.raises(ValueError, match="hub:owner/name"):
        load_model("somebody/something")  # nothing is fetched unless asked for


def test_a_hub_model_is_fetched_and_loaded(tmp_path, monkeypatch):
    build_model(SMALL).save_pretrained(tmp_path)
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **_: asked.append(name) or str(tmp_path)
    )
    assert load_model("hub:owner/name", device="cpu").describe() == build_model(SMALL).describe()
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
    return own, plain, fuse(plain, own, 0.3)


def test_a_base_has_its_weight_in_the_similarity(fused, images):
    own, plain, both = fused
    with torch.inference_mode():
        rows = both(images)
        assert both.dim == rows.shape[1] == 14
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))
        expected = 0.3 * plain(images) @ plain(images).T + 0.7 * own(images) @ own(images).T
        torch.testing.assert_close(rows @ rows.T, expected)
        torch.testing.assert_close(both.feature_map(images), own.feature_map(images))


@pytest.mark.parametrize("half", [False, True])
def test_a_model_of_two_heads_is_saved_and_loaded(fused, images, tmp_path, half):
    both = fused[2]
    both.save_pretrained(tmp_path, half=half)
    again = load_model(tmp_path, device="cpu")
    assert again.describe() == both.describe()
    with torch.inference_mode():
        found, expected = again(images), both(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=2e-3 if half else 0, rtol=0)


def test_only_models_of_one_head_on_the_same_weights_are_fused(fused):
    own, plain, both = fused
    with pytest.raises(ValueError, match="fused already"):
        fuse(both, own, 0.5)
    with pytest.raises(ValueError, match="fused already"):
        fuse(plain, both, 0.5)
    with pytest.raises(ValueError, match="base_weight from 0 to 1, got 2"):
        fuse(plain, own, 2)
    config = ModelConfig(layer="stage1", base=ModelConfig(context=(("smoothing", {}),)))
    with pytest.raises(ValueError, match="expected a base without context"):
        build_model(config, pretrained=False)


def test_a_base_on_other_weights_of_the_same_network_is_refused(fused):
    other = build_model(ModelConfig(layer="stage3", dim=6))
    with torch.no_grad():
        other.backbone.network.conv_stem.weight.mul_(1.01)
    with pytest.raises(ValueError, match="one backbone with the same weights"):
        fuse(other, fused[0], 0.5)


def test_built_modules_take_the_place_of_what_is_named(images):
    smoothing, pooling = LearnableSmoothing(24, kernel_size=5), GeM(2.0)
    model = build_model(
        ModelConfig(layer="stage2"),
        context={"first": smoothing, "second": LearnableSmoothing(24)},
        pooling=pooling,
        whitening=nn.Linear(24, 7),
    )
    assert model.context.first is smoothing and model.pooling is pooling
    assert model(images).shape == (2, 7) and model.dim == 7


def test_branches_are_joined_at_their_scales(tmp_path, images):
    backbone = build_model(ModelConfig(layer="stage2")).backbone
    branches = [Branch("stage2", GeM(3.0), scale=0.5), Branch("stage3", GeM(2.0), scale=2.0)]
    source = {"name": "efficientnet_lite0", "layer": "stage2"}
    model = RetrievalModel(backbone, Head(branches, nn.Linear(64, 9)), source=source).eval()
    with torch.inference_mode():
        x, y = backbone.maps(images, ["stage2", "stage3"])
        unit = nn.functional.normalize
        joined = torch.cat([0.5 * unit(gem(x, 3.0)), 2.0 * unit(gem(y, 2.0))], dim=1)
        torch.testing.assert_close(model(images), unit(model.whitening(joined)))
        model.save_pretrained(tmp_path)
        torch.testing.assert_close(load_model(tmp_path, device="cpu")(images), model(images))
    with pytest.raises(ValueError, match="from_maps"):
        model.descriptor(x)


class Doubled(Rebuildable, nn.Module):
    """A layer of somebody else."""

    def __init__(self, by=2.0):
        super().__init__()
        self.by = by

    def forward(self, x):
        return self.by * x


def test_only_trusted_classes_are_built():
    own = describe_module(Doubled(3.0))
    assert own == {"class": f"{__name__}.Doubled", "by": 3.0}
    with pytest.raises(ValueError, match="trusted="):
        build_module(own)
    assert build_module(own, trusted=(__name__,)).by == 3.0
    for path in (
        "os.system",
        "spatial_retrieval.models.load.load_model",
        "spatial_retrieval.models.model.Path",
        "spatial_retrieval.layers.pooling.nn.Linear",
        "spatial_retrieval.models.nothing.Thing",
        "spatial_retrieval.modelsevil.Thing",
    ):
        with pytest.raises(ValueError, match="expected|no such class"):
            build_module({"class": path})
    with pytest.raises(ValueError, match="that is defined in spatial_retrieval.models.model"):
        build_module({"class": "spatial_retrieval.models.model.Backbone"})  # imported there only
    with pytest.raises(ValueError, match="unexpected keyword argument"):
        build_module({"class": "spatial_retrieval.layers.pooling.GeM", "q": 1})


def test_what_cannot_be_built_again_is_not_saved():
    with pytest.raises(ValueError, match="Rebuildable"):
        describe_module(nn.Conv2d(1, 1, 1))
    with pytest.raises(ValueError, match="plain values"):
        describe_module(Doubled(torch.ones(1)))


def test_a_copy_remembers_what_it_was_built_with():
    layer = copy.deepcopy(LearnableSmoothing(8, kernel_size=5))
    assert layer.arguments == {"channels": 8, "kernel_size": 5}
    assert describe_module(nn.Sequential(layer))["modules"] == [describe_module(layer)]
    assert isinstance(build_module(describe_module(nn.Sequential(layer)))[0], LearnableSmoothing)


def test_a_model_saved_before_format_2_still_loads(tmp_path, images):
    config = {
        "layer": "stage2",
        "context": [["smoothing", {"kernel_size": 3}]],
        "dim": 8,
        "weight": 0.3,
        "beside": {"layer": "stage3", "dim": 6},
    }
    model = load_config(config)
    weights = {
        name.replace("head.branches.0.", "")
        .replace("base.branches.0.", "plain.")
        .replace("head.whitening", "whitening")
        .replace("base.whitening", "plain.whitening"): value
        for name, value in model.state_dict().items()
        if not name.startswith("backbone.")
    }
    assert {"plain.pooling.p", "context.smoothing.head.bias", "whitening.bias"} <= set(weights)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(weights, tmp_path / "model.safetensors")
    with torch.inference_mode():
        torch.testing.assert_close(load_model(tmp_path, device="cpu")(images), model(images))


def load_config(config):
    return build_model(ModelConfig.from_json(config))


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    model = build_model(SMALL)
    with torch.no_grad():
        model.whitening.bias[3] = torch.nan
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="head.whitening.bias holds values that are no finite"):
        load_model(tmp_path)


def test_timm_networks_are_loaded_by_name(images):
    a = load_model("timm-random:resnet18@stage3", device="cpu")
    torch.rand(3)  # whatever was drawn in between
    b = load_model("timm-random:resnet18@stage3", device="cpu")
    assert a.dim == 128 and a.fingerprint() == b.fingerprint()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_models_have_a_fingerprint(dtype):
    model = build_model(SMALL)
    assert model.to(dtype).fingerprint() != build_model(SMALL).fingerprint()


def test_a_half_head_whitens_what_stays_in_single_precision(images):
    backbone = build_model(ModelConfig(layer="stage2")).backbone
    branches = [Branch("stage2", GeM()), Branch("stage2", SecondOrderPooling(24))]
    model = RetrievalModel(backbone, Head(branches, nn.Linear(24 + 300, 9))).eval()
    with torch.inference_mode():
        single = model(images)
        half = model.to(torch.bfloat16)(images.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert (nn.functional.normalize(half.float(), dim=1) * single).sum(dim=1).min() > 0.95
