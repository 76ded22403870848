from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from training_toys import TinyHead, toy_maps

from spatial_retrieval.train import TrainConfig, train
from spatial_retrieval.train.data import TrainingData
from spatial_retrieval.train.objectives import (
    Objective,
    ObjectiveConfig,
    fused_rows,
    kept_similarities,
)


@pytest.fixture
def config(tmp_path):
    return TrainConfig(output=str(tmp_path / "run"), steps=12, groups=3, lr=1e-2, warmup=2)


@pytest.mark.parametrize("name", ["cosface", "supcon"])
def test_every_loss_falls_when_trained(name):
    weights = dict.fromkeys(["cosface", "supcon"], 0.0) | {name: 1.0}
    objective = Objective(ObjectiveConfig(**weights), labels=4, dimensions=6)
    torch.manual_seed(0)
    labels = torch.arange(4).repeat_interleave(3)
    free = nn.Parameter(torch.randn(12, 6))
    optimizer = torch.optim.Adam([free, *objective.parameters()], lr=0.1)
    losses = []
    for _ in range(15):
        loss = objective(nn.functional.normalize(free, dim=1), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert set(objective.losses) == {name}


def test_the_objective_is_the_weighted_sum():
    config = ObjectiveConfig(cosface=0.5, supcon=2.0)
    objective = Objective(config, labels=3, dimensions=4)
    rows, labels = nn.functional.normalize(torch.randn(6, 4), dim=1), torch.arange(3).repeat(2)
    parts = {name: float(loss(rows, labels).detach()) for name, loss in objective.losses.items()}
    expected = 0.5 * parts["cosface"] + 2 * parts["supcon"]
    assert objective(rows, labels).item() == pytest.approx(expected, rel=1e-5)


def test_kept_similarities_by_hand():
    rows = nn.functional.normalize(torch.randn(5, 4), dim=1)
    teacher = nn.functional.normalize(torch.randn(5, 3), dim=1)
    teacher[4] = torch.nan
    labels = torch.tensor([0, 0, 1, 2, 3])
    pairs = [(i, j) for i in range(4) for j in range(4) if labels[i] != labels[j]]
    expected = np.mean([float(rows[i] @ rows[j] - teacher[i] @ teacher[j]) ** 2 for i, j in pairs])
    assert kept_similarities(rows, labels, teacher).item() == pytest.approx(expected, rel=1e-5)
    assert kept_similarities(rows, labels, torch.full((5, 3), torch.nan)) == 0
    assert kept_similarities(teacher[:4], labels[:4], teacher[:4]) == 0


def test_a_teacher_s_geometry_is_learned(config):
    maps = toy_maps(twins=False)
    torch.manual_seed(0)
    teacher = nn.functional.normalize(torch.randn(8, 5), dim=1)[torch.from_numpy(maps.labels)]
    weights = ObjectiveConfig(cosface=0, supcon=0, keep=10)
    model = TinyHead()
    result = train(
        model, TrainingData(maps, teacher=teacher), replace(config, steps=30, objective=weights)
    )
    assert result.history[-1]["loss"] < 0.7 * result.history[0]["loss"]
    with pytest.raises(ValueError, match="a teacher's row for each of 32 items, got 3"):
        TrainingData(maps, teacher=teacher[:3])


def test_fused_rows_similarities_are_the_weighted_sum():
    own, base = (nn.functional.normalize(torch.randn(5, d), dim=1) for d in (4, 7))
    rows = fused_rows(own, base, 0.65)
    torch.testing.assert_close(rows @ rows.T, 0.65 * base @ base.T + 0.35 * own @ own.T)


def test_the_fused_loss_by_hand():
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    own, base = (nn.functional.normalize(torch.randn(6, d), dim=1) for d in (4, 7))
    config = ObjectiveConfig(cosface=0, supcon=0, fused=2.0, base_weight=0.3, fused_temperature=0.1)
    similar = (0.3 * base @ base.T + 0.7 * own @ own.T) / 0.1
    losses = []
    for i in range(6):  # Khosla et al. 2020, one positive each
        positive = i ^ 1
        others = [j for j in range(6) if j != i]
        losses.append(torch.logsumexp(similar[i, others], 0) - similar[i, positive])
    objective = Objective(config, labels=3, dimensions=4)
    value = objective(own, labels, None, base)
    assert value.item() == pytest.approx(2 * float(torch.stack(losses).mean()), rel=1e-5)
    assert objective(own, labels) == 0


def test_what_the_base_model_confuses_is_told_apart(config):
    maps = toy_maps(twins=False)
    labels = torch.from_numpy(maps.labels)
    base = nn.functional.normalize(torch.eye(4)[labels // 2], dim=1)  # two labels each alike
    objective = ObjectiveConfig(cosface=0, supcon=0, fused=1, base_weight=0.5)
    data = TrainingData(maps, base=base)
    result = train(TinyHead(), data, replace(config, steps=30, objective=objective))
    assert result.history[-1]["loss"] < 0.7 * result.history[0]["loss"]
    with pytest.raises(ValueError, match="a base model's row for each of 32 items, got 3"):
        TrainingData(maps, base=base[:3])
