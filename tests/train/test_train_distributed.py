import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from spatial_retrieval.train.gather import gather_rows
from training_toys import TinyHead, toy_maps

from spatial_retrieval.train import TrainConfig, train
from spatial_retrieval.train.data import TrainingData
from spatial_retrieval.train.loading import load_batches
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
        **os.environ, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
        "LOCAL_WORLD_SIZE": str(ranks),
    }  # fmt: skip
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
        "steps": 6, "groups": 2, "lr": 1e-2, "validate_every": 3, "checkpoint_every": 3,
        "accumulate": 2, "mine_every": 3, "objective": {"supcon": 1.0, "cosface": 1.0, "sos": 0.1},
    }  # fmt: skip
    config = TrainConfig.from_json({"output": str(tmp_path / "two"), **common})
    code = RANK.format(
        tests=str(Path(__file__).parents[1]), config=json.dumps(asdict(config)),
        out=str(tmp_path / "rank"),
    )  # fmt: skip
    launch(code, 2)
    ranks = [json.loads((tmp_path / f"rank{r}.json").read_text()) for r in range(2)]
    one = TinyHead()
    config = TrainConfig.from_json({"output": str(tmp_path / "one"), **common})
    result = train(one, TrainingData(toy_maps(), {"toys": toy_maps(seed=1)}), config)
    for a, b in zip(*(rank["seen"] for rank in ranks), strict=True):
        assert not set(a) & set(b)
    for rank in ranks:
        for mine, theirs in zip(one.parameters(), rank["weights"], strict=True):
            torch.testing.assert_close(mine.detach().flatten(), torch.tensor(theirs), rtol=1e-4,
                                       atol=1e-5)  # fmt: skip
        assert rank["best"] == pytest.approx(result.best) and rank["steps"] == 6


def test_shares_of_a_batch_make_the_whole_and_must_be_even():
    data = toy_maps()
    source = Batches(data.labels, twin_of=data.twin_of, groups=3)
    shares = [
        next(load_batches(data, source, start=2, stop=3, seed=0, rank=rank, ranks=3)).indices
        for rank in range(3)
    ]
    assert torch.cat(shares).tolist() == source.batch(2).tolist()
    with pytest.raises(ValueError, match="5 processes share evenly, got 12"):
        next(load_batches(data, source, start=0, stop=1, seed=0, rank=0, ranks=5))


def test_gathering_in_one_process_changes_nothing():
    x = torch.rand(3, 4)
    assert gather_rows(x) is x
