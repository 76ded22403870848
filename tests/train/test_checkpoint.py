import errno
import os
import pickle
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_toys import TinyHead, toy_maps

from spatial_retrieval.train import TrainConfig, train
from spatial_retrieval.train.checkpoint import (
    CheckpointError,
    check_state,
    load_state,
    save_checkpoint,
)
from spatial_retrieval.train.data import TrainingData


@pytest.fixture
def config(tmp_path):
    return TrainConfig(output=str(tmp_path / "run"), steps=4, groups=2, checkpoint_every=2)


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    state = {"model": {"w": torch.arange(3.0)}, "step": 7, "history": [{"loss": 0.5}]}
    save_checkpoint(tmp_path / "last.pt", state)
    back = load_state(tmp_path / "last.pt")
    assert torch.equal(back["model"]["w"], state["model"]["w"])
    assert back["step"] == 7 and back["history"] == state["history"]
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


class _Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps(_Evil())])
def test_a_file_that_is_none_is_refused_and_runs_nothing(tmp_path, content, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last\.pt: no readable checkpoint"):
        load_state(tmp_path / "last.pt")
    assert not (tmp_path / "evil").exists()


def test_another_version_is_refused(tmp_path):
    torch.save({"version": 99}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="version 1, got 99"):
        load_state(tmp_path / "last.pt")


def test_a_checkpoint_holds_all_that_going_on_needs(config):
    train(TinyHead(), toy_maps(), config)
    state = load_state(Path(config.output, "last.pt"))
    expected = {"model", "objective", "optimizer", "schedule", "scaler", "step", "random", "config"}
    assert expected <= set(state) and state["step"] == 4


def test_a_checkpoint_of_another_model_is_refused_and_kept(config):
    train(TinyHead(), toy_maps(), config)
    path = Path(config.output, "last.pt")
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"another model \(mix\.weight: expected \[9, 3"):
        train(TinyHead(width=9), toy_maps(), config)
    assert path.read_bytes() == before


def test_a_checkpoint_of_other_data_or_config_is_refused(config):
    train(TinyHead(), toy_maps(), config)
    with pytest.raises(CheckpointError, match="another set of data"):
        train(TinyHead(), toy_maps(landmarks=6), config)
    with pytest.raises(CheckpointError, match=r"another configuration \(lr: expected 0\.1, got"):
        train(TinyHead(), toy_maps(), replace(config, lr=0.1))


def test_differences_are_counted():
    with pytest.raises(CheckpointError, match="and 2 more"):
        check_state("x", "model", dict.fromkeys("abcde", 1), dict.fromkeys("abcde", 2))


def test_a_failed_write_keeps_the_last_good_checkpoint(config, monkeypatch):
    train(TinyHead(), toy_maps(), config)
    path = Path(config.output, "last.pt")
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write the checkpoint .*No space left.*is intact"):
        save_checkpoint(path, {"step": 9})
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir() if p.name.startswith(".")) == []


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        made = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        made = False
    if not made:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=False)


def test_a_full_disk_keeps_the_last_good_checkpoint(small_disk, config):
    config = replace(config, output=str(small_disk), checkpoint_every=1)

    def fill(history):
        if len(history) == 2:
            (small_disk / "other").write_bytes(bytes(700_000))

    model = TinyHead(width=1000)
    with pytest.raises(OSError, match="cannot write the checkpoint"):
        train(model, toy_maps(), config, callback=fill)
    (small_disk / "other").unlink()
    kept = load_state(small_disk / "last.pt")
    assert kept["step"] in (1, 2)


def test_best_weights_of_another_step_are_refused(config):
    data = TrainingData(toy_maps(), {"toys": toy_maps(seed=1)})
    config = replace(config, validate_every=2)
    best = Path(config.output, "best.pt")
    step = train(TinyHead(), data, config).best_step
    state = load_state(best)
    save_checkpoint(best, {**state, "step": step + 1})
    with pytest.raises(CheckpointError, match=rf"of step {step}, got {step + 1}; train anew"):
        train(TinyHead(), data, config)
    save_checkpoint(best, state)
    assert train(TinyHead(), data, config).best_step == step
