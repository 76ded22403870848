import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training_toys import ChannelScales, Cluttered, TinyHead, toy_maps

from spatial_retrieval.train import TrainConfig, train
from spatial_retrieval.train.augment import Augmented, HideCells, Mirrored
from spatial_retrieval.train.data import (
    ConcatSet,
    PhotoSet,
    TensorSet,
    TrainingData,
)
from spatial_retrieval.train.objectives import (
    Objective,
    ObjectiveConfig,
    kept_similarities,
    side_by_side,
)
from spatial_retrieval.train.setup import lr_factor
from spatial_retrieval.train.validation import leave_one_out_map, twin_accuracy, validate


@pytest.fixture
def config(tmp_path):
    return TrainConfig(
        output=str(tmp_path / "run"), steps=12, groups=3, lr=1e-2, warmup=2,
        validate_every=4, checkpoint_every=4,
    )  # fmt: skip


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_training_learns_and_keeps_the_best_weights(config):
    model, held_out = ChannelScales(), toy_maps(seed=9, landmarks=20, kind=Cluttered)
    before = validate(model, {"toys": held_out})
    data = TrainingData(toy_maps(landmarks=80, kind=Cluttered), {"toys": held_out})
    config = replace(config, steps=20, groups=8, validate_every=5, lr=0.1)
    result = train(model, data, config)
    after = validate(model, {"toys": held_out})
    assert after["toys/map"] > before["toys/map"] + 0.1
    assert after["toys/map"] == pytest.approx(result.best)
    assert result.best == max(row["toys/map"] for row in result.history if "toys/map" in row)
    assert [row["step"] for row in result.history] == list(range(1, 21))
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert not result.interrupted and result.path.exists() and not model.training


def test_the_same_seed_gives_the_same_weights_and_leaves_torch_s_generator_alone(config, tmp_path):
    models = [TinyHead(dropout=0.2) for _ in range(3)]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    for i, (model, seed) in enumerate(zip(models, (0, 0, 1), strict=True)):
        run = replace(config, output=str(tmp_path / str(i)), seed=seed)
        train(model, toy_maps(), run)
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert not torch.equal(weights(models[0]), weights(models[2]))
    assert torch.equal(torch.get_rng_state(), state)


def test_an_interrupt_leaves_a_usable_model_and_the_same_call_goes_on(config, tmp_path):
    whole = TinyHead(dropout=0.2)
    train(whole, toy_maps(), replace(config, output=str(tmp_path / "whole"), mine_every=3))

    def stop_at_five(history):
        if len(history) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    model = TinyHead(dropout=0.2)
    config = replace(config, mine_every=3)
    stopped = train(model, toy_maps(), config, callback=stop_at_five)
    assert stopped.interrupted and len(stopped.history) in (5, 6)
    assert torch.isfinite(model(toy_maps().items)).all()
    resumed = TinyHead(seed=1, dropout=0.2)  # its own start is overwritten
    result = train(resumed, toy_maps(), config)
    assert not result.interrupted and len(result.history) == 12
    assert torch.equal(weights(resumed), weights(whole))


def test_two_interrupts_raise(config):
    def twice(_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)

    with pytest.raises(KeyboardInterrupt):
        train(TinyHead(), toy_maps(), config, callback=twice)


KILLED = """
import sys, torch
from dataclasses import replace
sys.path.insert(0, {tests!r})
from training_toys import ChannelScales, Cluttered, TinyHead, toy_maps
from spatial_retrieval.train import TrainConfig, train
import json, os, signal
config = TrainConfig.from_json(json.loads({config!r}))
def die(history):
    if len(history) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
train(TinyHead(dropout=0.2), toy_maps(), config, callback=die)
"""


def test_a_killed_run_resumes_to_the_same_weights(config, tmp_path):
    import json

    whole, resumed = TinyHead(dropout=0.2), TinyHead(seed=2, dropout=0.2)
    train(whole, toy_maps(), replace(config, output=str(tmp_path / "whole")))
    code = KILLED.format(tests=str(Path(__file__).parents[1]), config=json.dumps(asdict(config)))
    killed = subprocess.run([sys.executable, "-c", code], timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL
    result = train(resumed, toy_maps(), config)
    assert len(result.history) == 12
    assert torch.equal(weights(resumed), weights(whole))


def test_resume_false_starts_anew(config):
    train(TinyHead(), toy_maps(), config)
    again = TinyHead()
    result = train(again, toy_maps(), replace(config, lr=2e-2), resume=False)
    assert len(result.history) == 12


def test_a_loss_that_is_no_number_names_the_batch_and_keeps_the_checkpoint(config):
    maps = toy_maps()
    maps.items[5] = math.nan
    maps.names = [f"view-{i}.jpg" for i in range(len(maps))]
    config = replace(config, checkpoint_every=1, groups=1, seed=1)
    with pytest.raises(ValueError, match=r"step \d+: the loss is nan; batch: .*view-5\.jpg"):
        train(TinyHead(), maps, config)
    good = Path(config.output, "last.pt")
    if good.exists():
        assert torch.isfinite(torch.load(good, weights_only=True)["model"]["out.weight"]).all()


def test_a_gradient_that_is_no_number_stops_too(config):
    class Cliff(TinyHead):
        def forward(self, x):
            return super().forward(x) + 0 * (self.out.weight - self.out.weight).abs().sqrt().sum()

    with pytest.raises(ValueError, match="step 0: the gradient is nan"):
        train(Cliff(), toy_maps(), config)


def test_one_label_only(config):
    with pytest.raises(ValueError, match="at least two labels, got 1"):
        train(TinyHead(), TensorSet(torch.rand(6, 3, 3, 3), np.zeros(6, int)), config)


def test_a_class_with_one_image_is_named(config):
    maps = TensorSet(torch.rand(5, 3, 3, 3), np.array([0, 0, 1, 2, 2]), names=list("abcde"))
    with pytest.raises(ValueError, match=r"one of label 1 \(c\)"):
        train(TinyHead(), maps, replace(config, groups=2))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_vanishes_in_epoch_two_is_named(config, tmp_path, workers):
    from PIL import Image

    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for i, path in enumerate(paths):
        Image.new("RGB", (8, 8), (40 * i, 90, 200 - 30 * i)).save(path)
    photos = PhotoSet(paths, np.repeat(np.arange(3), 2))

    def vanish(history):
        if len(history) == 1:
            paths[3].unlink(missing_ok=True)

    config = replace(config, workers=workers, checkpoint_every=1)
    with pytest.raises(ValueError, match=r"step \d+: .*3\.png") as caught:
        train(TinyHead(), photos, config, callback=vanish)
    assert "Traceback" not in str(caught.value)
    kept = torch.load(Path(config.output, "last.pt"), weights_only=True)
    assert kept["step"] >= 1


def test_items_of_two_shapes_are_named(config):
    class Odd(TensorSet):
        def __getitem__(self, key):
            return super().__getitem__(key)[..., : 2 + (key[0] > 0)]

    maps = toy_maps(twins=False, landmarks=3, views=2)
    odd = Odd(maps.items, maps.labels)
    with pytest.raises(ValueError, match="one shape in a batch"):
        train(TinyHead(), odd, config)


def test_photographs_are_augmented_by_their_seed(tmp_path):
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)).save(
        tmp_path / "a.png"
    )
    noisy = PhotoSet([tmp_path / "a.png"], np.zeros(1, int), augment=lambda x: x + torch.rand(1))
    assert noisy.repeats and not PhotoSet([tmp_path / "a.png"], np.zeros(1, int)).repeats
    assert torch.equal(noisy[0, 5], noisy[0, 5])
    assert not torch.equal(noisy[0, 5], noisy[0, 6])


def test_sets_join_with_their_labels_moved_up():
    joined = ConcatSet([toy_maps(landmarks=4, views=2), toy_maps(landmarks=3, twins=False)])
    assert len(joined) == 20 and joined.labels.max() == 6
    np.testing.assert_array_equal(joined.twin_of, [1, 0, 3, 2, -1, -1, -1])
    levelled = [
        TensorSet(torch.rand(2, 3, 3, 3), [0, 1], difficulty=["E", level]) for level in "MH"
    ]
    assert ConcatSet(levelled).difficulty.tolist() == ["E", "M", "E", "H"]
    assert joined.difficulty is None
    assert torch.equal(joined[8, 0], joined.parts[1][0, 0])
    assert torch.equal(joined[7, 0], joined.parts[0][7, 0])


def test_patience_stops_early_and_stays_stopped(config):
    data = TrainingData(toy_maps(), {"toys": toy_maps(seed=1)})
    config = replace(config, steps=40, lr=1e-9, validate_every=2, patience=2)
    result = train(TinyHead(), data, config)
    assert len(result.history) == 6 and result.best_step == 2
    assert len(train(TinyHead(), data, config).history) == 6


def test_best_by_must_be_a_score(config):
    data = TrainingData(toy_maps(), {"toys": toy_maps(seed=1)})
    with pytest.raises(ValueError, match="best_by among toys/map, toys/twin, got 'map'"):
        train(TinyHead(), data, replace(config, best_by="map"))


def test_accumulated_batches_make_one_step(config):
    result = train(TinyHead(), toy_maps(), replace(config, accumulate=2, steps=3))
    assert len(result.history) == 3


def test_slower_parameters_move_less(config):
    model = TinyHead()
    before = model.out.weight.detach().clone()
    train(model, toy_maps(), replace(config, slower=(("out", 0.0),)))
    assert torch.equal(model.out.weight, before)


def test_frozen_statistics_stay(config):
    class Normed(TinyHead):
        def __init__(self):
            super().__init__()
            self.backbone = nn.BatchNorm2d(3)
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            return super().forward(self.norm(self.backbone(x)))

    model = Normed()
    train(model, toy_maps(), config)
    assert (model.backbone.running_mean == 0).all() and (model.norm.running_mean != 0).any()


def test_half_precision_runs(config):
    result = train(TinyHead(), toy_maps(), replace(config, precision="bf16"))
    assert result.history[-1]["loss"] < result.history[0]["loss"]


@pytest.mark.parametrize(
    "name", ["cosface", "arcface", "supcon", "contrastive", "triplet", "multi_similarity", "sos"]
)
def test_every_loss_falls_when_trained(name):
    if name == "sos":
        pytest.importorskip("spatial_retrieval.train.losses")
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
    assert set(objective.parts(nn.functional.normalize(free, dim=1), labels)) == {name}


def test_the_objective_is_the_weighted_sum():
    config = ObjectiveConfig(cosface=0.5, supcon=2.0)
    objective = Objective(config, labels=3, dimensions=4)
    rows, labels = nn.functional.normalize(torch.randn(6, 4), dim=1), torch.arange(3).repeat(2)
    parts = objective.parts(rows, labels)
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


def test_side_by_side_similarities_are_the_weighted_sum():
    own, plain = (nn.functional.normalize(torch.randn(5, d), dim=1) for d in (4, 7))
    rows = side_by_side(own, plain, 0.65)
    torch.testing.assert_close(rows @ rows.T, 0.65 * plain @ plain.T + 0.35 * own @ own.T)


def test_the_loss_beside_a_plain_model_by_hand():
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    own, plain = (nn.functional.normalize(torch.randn(6, d), dim=1) for d in (4, 7))
    config = ObjectiveConfig(cosface=0, supcon=0, beside=2.0, share=0.3, beside_temperature=0.1)
    similar = (0.3 * plain @ plain.T + 0.7 * own @ own.T) / 0.1
    losses = []
    for i in range(6):  # Khosla et al. 2020, one positive each
        positive = i ^ 1
        others = [j for j in range(6) if j != i]
        losses.append(torch.logsumexp(similar[i, others], 0) - similar[i, positive])
    objective = Objective(config, labels=3, dimensions=4)
    value = objective(own, labels, None, plain)
    assert value.item() == pytest.approx(2 * float(torch.stack(losses).mean()), rel=1e-5)
    assert objective(own, labels) == 0


def test_what_the_plain_model_confuses_is_told_apart(config):
    maps = toy_maps(twins=False)
    labels = torch.from_numpy(maps.labels)
    plain = nn.functional.normalize(torch.eye(4)[labels // 2], dim=1)  # two labels each alike
    objective = ObjectiveConfig(cosface=0, supcon=0, beside=1, share=0.5)
    data = TrainingData(maps, plain=plain)
    result = train(TinyHead(), data, replace(config, steps=30, objective=objective))
    assert result.history[-1]["loss"] < 0.7 * result.history[0]["loss"]
    with pytest.raises(ValueError, match="a plain model's row for each of 32 items, got 3"):
        TrainingData(maps, plain=plain[:3])


def test_the_rate_warms_up_and_falls_to_nothing():
    rates = [lr_factor(step, steps=50, warmup=10) for step in range(51)]
    assert rates[:11] == sorted(rates[:11]) and rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[50] == pytest.approx(0)


def test_leave_one_out_map_is_that_of_the_revisited_protocol():
    from spatial_retrieval.metrics.average_precision import average_precision

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(17, 3))
    labels = np.array([0] * 7 + [1] * 5 + [2] * 4 + [3])
    by_label = []
    for label in (0, 1, 2):
        aps = []
        for q in np.flatnonzero(labels == label):
            others = [i for i in np.argsort(-(rows @ rows[q])) if i != q]
            right = labels[others] == label
            aps.append(average_precision(right[None], [right.sum()])[0])
        by_label.append(np.mean(aps))
    assert leave_one_out_map(rows, labels) == pytest.approx(np.mean(by_label))


def test_twin_accuracy_compares_within_a_level_only():
    rows = np.array([[1, 0], [0.6, 0.8], [0.8, 0.6], [0.7, 0.71]], dtype=np.float32)
    labels, twins = np.array([0, 0, 1, 1]), np.array([1, 0])
    levels = np.array(["E", "H", "E", "H"])
    # label 0, query E: positive H 0.6 against twin H 0.7, wrong; query H: positive E 0.6 against
    # twin E 0.96, wrong. label 1, query E: H 0.986 against H 0.96, right; query H: E 0.986 > 0.7.
    assert twin_accuracy(rows, labels, twins, levels) == 0.5
    assert twin_accuracy(np.ones((4, 2)), labels, twins, levels) == 0.5  # ties


def test_mirrored_and_hidden_cells():
    maps = toy_maps()
    mirrored = Mirrored(maps)
    assert torch.equal(mirrored[3, 0].flip(-1), maps[3, 0]) and len(mirrored) == len(maps)
    hidden = Augmented(maps, HideCells(0.9))
    assert torch.equal(hidden[0, 1], hidden[0, 1])
    shares = [float((hidden[0, seed] == 0).all(dim=0).float().mean()) for seed in range(40)]
    assert min(shares) < 0.2 and 0.4 < max(shares) <= 1
    with pytest.raises(ValueError, match=r"share of cells in \[0, 1\), got 1"):
        HideCells(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps of at least 1"),
        ({"lr": 0.0}, "lr and clip > 0"),
        ({"precision": "fp8"}, "precision auto, no, bf16 or fp16"),
        ({"objective": {"cosface": 0, "supcon": 0}}, "loss weights"),
        ({"objective": {"cosfaec": 1}}, "unknown keys .*cosfaec"),
        ({"epochs": 3}, "unknown keys .*epochs"),
    ],
)
def test_bad_configs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_json({"output": "x", **changes})


def test_a_config_survives_json():
    import json

    config = TrainConfig(output="x", slower=(("whitening", 0.1),), objective=ObjectiveConfig(sos=2))
    assert TrainConfig.from_json(json.loads(json.dumps(asdict(config)))) == config


def test_a_model_without_parameters_to_train_is_refused(config):
    model = TinyHead().requires_grad_(False)
    with pytest.raises(ValueError, match="parameters that require gradients"):
        train(model, toy_maps(), config)


def test_a_model_that_gives_no_rows_is_refused(config):
    with pytest.raises(ValueError, match=r"\(B, D\) rows"):
        train(nn.Conv2d(3, 2, 1), toy_maps(), config)
