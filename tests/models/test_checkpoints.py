import importlib
import importlib.util
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from official_toys import TOYS
from torch.nn.functional import normalize

from spatial_retrieval.models.checkpoints import (
    KINDS,
    PROJECTS,
    adopt,
    describe_adopted,
    load_checkpoint,
    recognise,
)

# golden file → its descriptors: name → (kind or None, scales or None for the published ones)
ONE = (1.0,)
GOLDEN = {
    "cirtorch-resnet50-gem-w": {"single": (None, ONE), "multi": (None, None)},
    "cirtorch-vgg16-gem": {"single": (None, ONE)},
    "solar-resnet50": {"single": (None, ONE)},
    "cvnet-resnet50": {"single": (None, ONE)},
    "superglobal-resnet50": {
        "cvnet": ("superglobal-plain", ONE),
        "superglobal_single": (None, ONE),
        "superglobal_multi": (None, None),
    },
    "superglobal-resnet50-relup": {
        "cvnet": ("superglobal-plain-relup", ONE),
        "superglobal_single": ("superglobal-relup", ONE),
        "superglobal_multi": ("superglobal-relup", None),
    },
    "eigenplaces-resnet18-512": {"single": (None, ONE)},
    "megaloc-small": {"single": (None, ONE)},
}
RECOGNISED = {
    "cirtorch-resnet50-gem-w": "cirtorch",
    "cirtorch-vgg16-gem": "cirtorch",
    "solar-resnet50": "solar",
    "cvnet-resnet50": "cvnet",
    "superglobal-resnet50": "superglobal",
    "superglobal-resnet50-relup": "superglobal",
    "eigenplaces-resnet18-512": "eigenplaces",
    "megaloc-small": "megaloc",
}


def pictures(height, width, batch=2):
    y, x = torch.meshgrid(torch.arange(height) / 9, torch.arange(width) / 7, indexing="ij")
    waves = [torch.sin(x * (1 + c) + y * (2 - c) + b) for b in range(batch) for c in range(3)]
    noise = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))
    return 0.4 + 0.3 * torch.stack(waves).unflatten(0, (batch, 3)) + 0.2 * noise


@pytest.fixture(scope="module")
def golden_state(shared):
    folder = shared / "golden" / "checkpoints"
    spec = importlib.util.spec_from_file_location("golden_fill", folder / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    networks = json.loads((folder / "keys.json").read_text())

    def state(name):
        return {
            # 100 million numbers that are left out are not worth drawing
            key: torch.zeros(shape)
            if ".seb" in key
            else torch.from_numpy(np.array(module.fill(key, tuple(shape))))
            for key, shape in networks[name].items()
        }

    return state


@pytest.mark.parametrize("name", GOLDEN)
def test_the_official_descriptor_is_met(name, golden_state, shared):
    state = golden_state(name)
    assert recognise(state) == RECOGNISED[name]
    golden = np.load(shared / "golden" / "checkpoints" / f"{name}.npz")
    images = torch.from_numpy(golden["image"]).permute(2, 0, 1)[None] / 255
    for descriptor, (kind, scales) in GOLDEN[name].items():
        adopted = adopt(state, kind=kind)
        with torch.inference_mode():
            row = describe_adopted(adopted, images, scales or adopted.protocol.scales)[0].numpy()
        expected = golden[descriptor]
        assert row @ expected >= 1 - 1e-5
        np.testing.assert_allclose(row, expected, atol=1e-4)
        assert_every_tensor_is_used(adopted, state)


def assert_every_tensor_is_used(adopted, state):
    parts = [adopted.network, adopted.pooling, adopted.whitening]
    used = sum(len(part.state_dict()) for part in parts)
    left_out = set(adopted.card["left_out"])
    assert used + len(left_out) == len(state)
    assert left_out <= set(state)


@pytest.fixture(scope="module")
def toys():
    made = {}

    def toy(name):
        if name not in made:
            made[name] = TOYS[name]()
        return made[name]

    return toy


def adopted_toy(state, name):
    return adopt(state, kind=name.split()[0])


# both sides fall between multiples of 14, 16 and 32, and there is more than one row and column
@pytest.mark.parametrize(("height", "width"), [(101, 133), (128, 76)])
@pytest.mark.parametrize("name", TOYS)
def test_other_sizes_are_as_the_published_formulas_make_them(name, height, width, toys):
    state, oracle = toys(name)
    adopted = adopted_toy(state, name)
    images = pictures(height, width)
    with torch.inference_mode():
        rows = describe_adopted(adopted, images)
        torch.testing.assert_close(rows, oracle(images), atol=2e-5, rtol=0)
    assert_every_tensor_is_used(adopted, state)


@pytest.mark.parametrize("name", TOYS)
def test_a_network_says_its_channels_and_stride(name, toys):
    network = adopted_toy(toys(name)[0], name).network
    with torch.inference_mode():
        maps = network(pictures(128, 192, batch=1))
    x, *token = maps if isinstance(maps, tuple) else (maps,)
    stride = network.stride
    assert x.shape == (1, network.channels, round(128 / stride), round(192 / stride))
    assert [t.shape for t in token] == [(1, network.channels, 1, 1)] * len(token)
    assert not network.training


@pytest.mark.parametrize("name", TOYS)
def test_each_part_is_built_again_from_its_words(name, toys):
    adopted = adopted_toy(toys(name)[0], name)
    assert set(adopted.parts()) == {"network", "pooling", "whitening", "final"}
    for part, (path, arguments) in json.loads(json.dumps(adopted.parts())).items():
        module, _, kind = path.rpartition(".")
        again = getattr(importlib.import_module(module), kind)(**arguments)
        again.load_state_dict(getattr(adopted, part).state_dict())
    json.dumps({**adopted.card, "protocol": asdict(adopted.protocol)})


def test_every_kind_has_a_toy_or_is_a_variant_of_one():
    toys = {name.split()[0] for name in TOYS}
    variants = {"cirtorch-single", "cirtorch-plain", "superglobal-plain", "superglobal-relup"}
    assert set(KINDS) == toys | variants
    assert {project.KIND for project in PROJECTS} <= toys


def test_recognition_by_names(toys):
    for name in ("cirtorch", "cirtorch vgg", "solar", "cvnet", "superglobal", "salad", "megaloc"):
        assert recognise(toys(name)[0]) == name.split()[0]
    assert recognise(toys("cosplace vgg")[0]) == recognise(toys("eigenplaces")[0]) == "eigenplaces"
    with pytest.raises(ValueError, match="expected a checkpoint of megaloc.*got one with .*a, b"):
        recognise({"a": torch.zeros(1), "b": torch.zeros(1)})
    with pytest.raises(ValueError, match="expected a kind among .*superglobal-relup.*got 'delg'"):
        adopt(toys("cirtorch")[0], kind="delg")


@pytest.mark.parametrize("name", ["cirtorch", "solar", "cvnet", "superglobal", "eigenplaces"])
def test_an_unknown_tensor_is_named(name, toys):
    state = {**toys(name)[0], "pool.rpool.p": torch.ones(1)}
    with pytest.raises(ValueError, match=r"unknown tensor pool\.rpool\.p .* of the kind"):
        adopted_toy(state, name)


@pytest.mark.parametrize("name", TOYS)
def test_a_missing_tensor_or_a_wrong_shape_is_named(name, toys):
    state = toys(name)[0]
    weights = [key for key in state if key.endswith("weight") and state[key].ndim > 1]
    for key in (weights[0], weights[len(weights) // 2], weights[-1]):
        if state[key].shape[0] == 1:
            continue
        without = {k: v for k, v in state.items() if k != key}
        with pytest.raises(ValueError, match="lacks|has, beyond|expected"):
            adopted_toy(without, name)
        with pytest.raises(ValueError, match="expected|lacks"):
            adopted_toy({**state, key: state[key][:, :-1]}, name)


def test_a_surplus_tensor_is_named_officially(toys):
    state = toys("cirtorch")[0]
    key = "features.4.0.conv9.weight"
    with pytest.raises(ValueError, match=rf"beyond what this network takes, {key}"):
        adopt({**state, key: torch.zeros(1)})
    with pytest.raises(ValueError, match=r"features\.4\.0\.conv1\.weight of shape .* got"):
        adopt({**state, "features.4.0.conv1.weight": torch.zeros(64, 64, 3, 3)})
    salad = toys("salad")[0]
    with pytest.raises(ValueError, match="are the same tensor"):
        adopt({**salad, "backbone.cls_token": salad["backbone.model.cls_token"]})


def test_files_that_do_not_count_batches_and_half_precision(toys):
    state, oracle = toys("cirtorch")
    old = {k: v.half() for k, v in state.items() if not k.endswith("num_batches_tracked")}
    images = pictures(96, 96)
    with torch.inference_mode():
        rows = describe_adopted(adopt(old), images)
        assert (rows * oracle(images)).sum(dim=1).min() > 0.999
    assert rows.dtype == torch.float32


def test_the_state_is_not_shared_with_the_model(toys):
    state = toys("cirtorch")[0]
    adopted = adopt(state)
    with torch.no_grad():
        adopted.whitening.weight.zero_()
    assert state["whiten.weight"].abs().sum() > 0


def test_one_power_for_each_channel(toys):
    state, _ = toys("cirtorch vgg")
    p = torch.linspace(1, 5, 512)
    adopted = adopt({**state, "pool.p": p})
    images = pictures(96, 96)
    with torch.inference_mode():
        x = adopted.network((images - 0.5) / 0.25)
        pooled = x.clamp(min=1e-6).pow(p[:, None, None]).mean(dim=(-2, -1)).pow(1 / p)
        torch.testing.assert_close(adopted.pooling(x), normalize(pooled))
    assert adopted.protocol.power == 1
    with pytest.raises(ValueError, match="positive numbers"):
        adopt({**state, "pool.p": -p})
    with pytest.raises(ValueError, match="a pooling of 512 channels.*got one of 7"):
        adopt({**state, "pool.p": p[:7]})
    with pytest.raises(ValueError, match=r"expected numbers in pool\.p, got shape \(0,\)"):
        adopt({**state, "pool.p": p[:0]})


def test_mean_and_std_come_from_the_file(toys):
    state, oracle = toys("cirtorch")
    adopted = adopt(state, {"mean": [0.5, 0.5, 0.5], "std": np.array([0.25, 0.25, 0.25])})
    assert adopted.network.mean == (0.5, 0.5, 0.5) and adopted.network.std == (0.25, 0.25, 0.25)
    mean, std = (
        torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    images = pictures(64, 96)
    with torch.inference_mode():
        same = (images - mean) / std * 0.25 + 0.5
        torch.testing.assert_close(
            describe_adopted(adopted, same), oracle(images), atol=2e-5, rtol=0
        )


@pytest.mark.parametrize(
    "meta", [{"mean": None}, {"std": [1, 0, 1]}, {"mean": "abc"}, {"std": [1]}]
)
def test_a_mean_or_std_that_is_none_is_refused(meta, toys):
    for name in ("cirtorch vgg", "solar"):
        with pytest.raises(ValueError, match="expected three numbers as meta"):
            adopt(toys(name)[0], meta)


def learned(seed, out):
    rng = np.random.default_rng(seed)
    return {"m": rng.standard_normal((512, 1)), "P": rng.standard_normal((out, 512))}


def test_a_learned_whitening_acts_on_the_joined_row(toys):
    state, oracle = toys("cirtorch vgg")
    few, many = ({"ss": learned(s, 20), "ms": learned(s + 1, 30)} for s in (0, 2))
    meta = {"Lw": {"retrieval-SfM-120k": many, "retrieval-SfM-30k": few}}
    images = pictures(96, 128)
    adopted = adopt(state, meta)
    with torch.inference_mode():
        rows = describe_adopted(adopted, images, adopted.protocol.scales)
        scaled = [
            torch.nn.functional.interpolate(
                images - torch.tensor([0.485, 0.456, 0.406])[:, None, None],
                scale_factor=s,
                mode="bilinear",
                align_corners=False,
            )
            + torch.tensor([0.485, 0.456, 0.406])[:, None, None]
            for s in (1, 2**-0.5, 0.5)
        ]
        joined = sum(oracle(x).double() ** 2.7 for x in scaled) / 3
    joined = normalize(joined ** (1 / 2.7)).numpy()
    expected = (joined - many["ms"]["m"].T) @ many["ms"]["P"].T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(rows.numpy(), expected, atol=1e-5)
    assert "meta.Lw.retrieval-SfM-30k.ms" in adopted.card["left_out"]
    assert "retrieval-SfM-120k.ms" in adopted.card["whitening"]
    single = adopt(state, meta, kind="cirtorch-single")
    assert single.protocol.scales == (1.0,) and single.final.out_features == 20
    assert isinstance(adopt(state, meta, kind="cirtorch-plain").final, torch.nn.Identity)
    with pytest.raises(ValueError, match=r"expected a whitening m \(512, 1\)"):
        adopt(state, {"Lw": {"set": {"ms": {"m": np.zeros(3), "P": np.zeros((2, 3))}}}})
    with pytest.raises(ValueError, match=r"of m and P, got \{'m'"):
        adopt(state, {"Lw": {"set": {"ms": {"m": np.zeros(3)}}}})
    with pytest.raises(ValueError, match="m and P as arrays"):
        adopt(state, {"Lw": {"set": {"ms": {"m": "text", "P": np.zeros((2, 3))}}}})
    for damaged in ([1], {"set": 3}):
        with pytest.raises(ValueError, match="expected meta.Lw as data set"):
            adopt(state, {"Lw": damaged})
    with pytest.raises(ValueError, match="expected the whitening 'ms'"):
        adopt(state, {"Lw": {"set": {"ss": learned(0, 3)}}})


def test_from_a_file_to_rows(toys, tmp_path):
    state, _ = toys("cirtorch vgg")
    meta = {"architecture": "vgg11", "Lw": {"retrieval-SfM-120k": {"ms": learned(1, 9)}}}
    torch.save({"meta": meta, "state_dict": state}, tmp_path / "official.pth")
    images = pictures(64, 96, batch=1)
    with torch.inference_mode():
        rows = describe_adopted(adopt(*load_checkpoint(tmp_path / "official.pth")), images)
        torch.testing.assert_close(rows, describe_adopted(adopt(state, meta), images))
    assert rows.shape == (1, 9)


def test_attention_after_one_stage_only(toys):
    state = {k: v for k, v in toys("solar")[0].items() if ".soa4." not in k}
    adopted = adopt(state)
    assert adopted.arguments["network"]["attention"] == ["soa5"]
    gamma = {**state, "features.soa5.gamma": torch.zeros(1)}
    assert adopt(gamma).card["left_out"] == ["features.soa5.gamma"]
