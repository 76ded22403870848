from dataclasses import asdict

import pytest
import torch
from torch import nn
from training_toys import TinyHead

from spatial_retrieval.train import TrainConfig
from spatial_retrieval.train.objectives import ObjectiveConfig
from spatial_retrieval.train.setup import has_idle_parameters, lr_factor, parameter_groups


def test_the_rate_warms_up_and_falls_to_nothing():
    rates = [lr_factor(step, steps=100, warmup=10) for step in range(101)]
    assert rates[:11] == sorted(rates[:11]) and rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[100] == pytest.approx(0)


def test_a_short_run_warms_up_for_a_tenth_of_its_steps():
    rates = [lr_factor(step, steps=50, warmup=40) for step in range(51)]
    assert rates[4] < rates[5] == 1.0 > rates[6]
    assert lr_factor(0, steps=1, warmup=40) == 1.0


def test_weight_decay_is_for_matrices_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Linear(4, 4))
    config = TrainConfig(output="x", weight_decay=0.1, slower=(("2", 0.5),))
    groups = parameter_groups(model, nn.Linear(1, 1), config)
    found = {id(p): group for group in groups for p in group["params"]}
    assert len(found) == 8  # the objective's parameters are trained, too
    for name, p in model.named_parameters():
        assert found[id(p)]["weight_decay"] == (0.1 if p.ndim > 1 else 0), name
        assert found[id(p)]["lr"] == config.lr * (0.5 if name.startswith("2") else 1), name


def test_parameters_that_an_item_does_not_reach_are_noticed_and_nothing_is_left_behind():
    model, item = TinyHead(), torch.rand(3, 3, 3)
    assert not has_idle_parameters(model, item)
    model.never = nn.Linear(2, 2)
    assert has_idle_parameters(model.train(), item) and model.training
    assert all(p.grad is None for p in model.parameters())
    model.never.requires_grad_(False)
    assert not has_idle_parameters(model, item)


def test_a_config_of_version_0_1_is_read():
    old = {"cosface": 1.0, "beside": 1.0, "share": 0.85, "beside_temperature": 0.011}
    unused = {"arcface": 0.0, "sos": 0.0, "triplet": 0.0, "triplet_margin": 0.2}
    config = TrainConfig.from_json({"output": "x", "objective": {**old, **unused}})
    assert config.objective == ObjectiveConfig(fused=1.0, base_weight=0.85, fused_temperature=0.011)
    with pytest.raises(ValueError, match="'sos' is no longer offered; delete the key"):
        TrainConfig.from_json({"output": "x", "objective": {"sos": 0.1}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps of at least 1"),
        ({"lr": 0.0}, "lr and clip > 0"),
        ({"precision": "fp8"}, "precision: Input should be 'auto', 'no', 'bf16' or 'fp16'"),
        ({"objective": {"cosface": 0, "supcon": 0}}, "loss weights"),
        ({"objective": {"cosfaec": 1}}, "unknown key objective.cosfaec"),
        ({"epochs": 3}, "unknown key epochs"),
        ({"steps": "3"}, "steps: Input should be a valid integer"),
        ({"slower": [["whitening"]]}, "slower.0.1: "),
    ],
)
def test_bad_configs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_json({"output": "x", **changes})


def test_a_config_survives_json():
    import json

    config = TrainConfig(
        output="x", slower=(("whitening", 0.1),), objective=ObjectiveConfig(keep=2)
    )
    assert TrainConfig.from_json(json.loads(json.dumps(asdict(config)))) == config
