import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from training_toys import TinyHead, toy_maps

from spatial_retrieval.train import TrainConfig, train
from spatial_retrieval.train.data import TrainingData
from spatial_retrieval.train.loading import load_batches
from spatial_retrieval.train.processes import gather_rows
from spatial_retrieval.train.samplers import Batches

RANK = """
import json, sys
sys.path.insert(0, {tests!r})
import torch
from training_toys import TinyHead, toy_maps
from spatial_retrieval.train import TrainConfig, train
from spatial_retrieval.train import run
from spatial_retrieval.train.data import TrainingData
seen = []
loader = run.load_batches
def noting(*args, **options):
    for batch in loader(*args, **options):
        seen.append(batch.indices.tolist())
        yield batch
run.load_batches = noting
config = TrainConfig.from_json(json.loads({config!r}))
model = TinyHead()
result = train(model, TrainingData(toy_maps(), {{"toys": toy_maps(seed=1)}}), config)
import os
rank = os.environ["RANK"]
with open({out!r} + rank + ".json", "w") as file:
    json.dump({{"seen": seen, "weights": [p.detach().flatten().tolist() for p in
        model.parameters()], "best": result.best, "steps": len(result.history)}}, file)
torch.distributed.destroy_process_group()
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def launch(code, ranks):
    common = {
        **os.environ,
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "LOCAL_WORLD_SIZE": str(ranks),
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(ranks)
    ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()[-2000:]


def test_two_processes_see_different_data_and_give_the_weights_of_one(tmp_path):
    common = {
        "steps": 6,
        "groups": 2,
        "lr": 1e-2,
        "validate_every": 3,
        "checkpoint_every": 3,
        "accumulate": 2,
        "mine_every": 3,
        "objective": {"supcon": 1.0, "cosface": 1.0},
    }
    config = TrainConfig.from_json({"output": str(tmp_path / "two"), **common})
    code = RANK.format(
        tests=str(Path(__file__).parents[1]),
        config=json.dumps(asdict(config)),
        out=str(tmp_path / "rank"),
    )
    launch(code, 2)
    ranks = [json.loads((tmp_path / f"rank{r}.json").read_text()) for r in range(2)]
    one = TinyHead()
    config = TrainConfig.from_json({"output": str(tmp_path / "one"), **common})
    result = train(one, TrainingData(toy_maps(), {"toys": toy_maps(seed=1)}), config)
    for a, b in zip(*(rank["seen"] for rank in ranks), strict=True):
        assert not set(a) & set(b)
    for rank in ranks:
        for mine, theirs in zip(one.parameters(), rank["weights"], strict=True):
            torch.testing.assert_close(
                mine.detach().flatten(), torch.tensor(theirs), rtol=1e-4, atol=1e-5
            )
        assert rank["best"] == pytest.approx(result.best) and rank["steps"] == 6


WHOLE = """
import json, os
import numpy as np, torch
from spatial_retrieval import ModelConfig, build_model
from spatial_retrieval.train import TrainConfig, train
from spatial_retrieval.train.data import TensorSet
images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
data, losses = TensorSet(images, np.repeat(np.arange(4), 2)), {{}}
for layer in ("head", "stage3"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(ModelConfig(layer=layer, dim=4))
    config = TrainConfig(output={out!r} + layer, steps=3, groups=2, lr=1e-4)
    losses[layer] = [row["loss"] for row in train(model, data, config).history]
with open({out!r} + os.environ["RANK"] + ".json", "w") as file:
    json.dump(losses, file)
torch.distributed.destroy_process_group()
"""


def test_two_processes_train_a_whole_network_past_the_second_step(tmp_path):
    # neither an ImageNet classifier nor stages behind the one that is read ever get a gradient
    out = str(tmp_path / "run")
    launch(WHOLE.format(out=out), 2)
    first, second = (json.loads(Path(f"{out}{rank}.json").read_text()) for rank in range(2))
    for layer in ("head", "stage3"):
        assert first[layer] == pytest.approx(second[layer]) and len(first[layer]) == 3


RECIPE = """
import json, os
import torch
from spatial_retrieval.facades import data
from spatial_retrieval.train import map_set
from spatial_retrieval.train.recipe import Recipe
did = []
render, encode = data._render, map_set._encoded
data._render = lambda *a: (did.append("rendered"), render(*a))
map_set._encoded = lambda *a: (did.append("encoded"), encode(*a))[1]
Recipe.load({recipe!r}).run()
with open({out!r} + os.environ["RANK"] + ".json", "w") as file:
    json.dump(did, file)
torch.distributed.destroy_process_group()
"""


def test_one_process_renders_and_fills_the_caches_for_all(tmp_path, monkeypatch):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path / "cache"))
    recipe = {
        "model": {"layer": "stage5", "dim": 4},
        "data": {"landmarks": 4, "views": 2, "size": 64, "validation_landmarks": 2},
        "train": {"output": str(tmp_path / "run"), "steps": 2, "groups": 2},
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    out = str(tmp_path / "rank")
    launch(RECIPE.format(recipe=str(tmp_path / "recipe.json"), out=out), 2)
    first, second = (json.loads(Path(f"{out}{rank}.json").read_text()) for rank in range(2))
    assert first == ["rendered", "encoded", "rendered", "encoded"] and second == []


def test_parts_of_a_batch_make_the_whole_and_must_be_even():
    data = toy_maps()
    source = Batches(data, groups=3)
    parts = [
        next(load_batches(data, source, range(2, 3), seed=0, rank=(rank, 3))).indices
        for rank in range(3)
    ]
    assert torch.cat(parts).tolist() == source.batch(2).tolist()
    with pytest.raises(ValueError, match="5 processes divide evenly, got 12"):
        next(load_batches(data, source, range(1), seed=0, rank=(0, 5)))


def test_gathering_in_one_process_changes_nothing():
    x = torch.rand(3, 4)
    assert gather_rows(x) is x
