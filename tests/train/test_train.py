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
from spatial_retrieval.train.data import PhotoSet, TensorSet, TrainingData
from spatial_retrieval.train.validation import validate


@pytest.fixture
def config(tmp_path):
    return TrainConfig(
        output=str(tmp_path / "run"),
        steps=12,
        groups=3,
        lr=1e-2,
        warmup=2,
        validate_every=4,
        checkpoint_every=4,
    )


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


def test_patience_stops_early_and_stays_stopped(config):
    data = TrainingData(toy_maps(), {"toys": toy_maps(seed=1)})
    config = replace(config, steps=40, lr=1e-9, validate_every=2, patience=2)
    result = train(TinyHead(), data, config)
    assert len(result.history) == 6 and result.best_step == 2
    assert len(train(TinyHead(), data, config).history) == 6


def test_best_by_must_be_a_score(config):
    data = TrainingData(toy_maps(), {"toys": toy_maps(seed=1)})
    with pytest.raises(ValueError, match="best_by among toys/map, toys/twin; got 'map'"):
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


def test_a_model_without_parameters_to_train_is_refused(config):
    model = TinyHead().requires_grad_(False)
    with pytest.raises(ValueError, match="parameters that require gradients"):
        train(model, toy_maps(), config)


def test_a_model_that_gives_no_rows_is_refused(config):
    with pytest.raises(ValueError, match=r"\(B, D\) rows"):
        train(nn.Conv2d(3, 2, 1), toy_maps(), config)
