"""What refinement and smoothing owe to their parts: one head after another, alike in all else.

    python benchmarks/refinement_ablation.py maps               render and cache the maps, once
    python benchmarks/refinement_ablation.py train refine       train and score one row
    python benchmarks/refinement_ablation.py train mlp --seed 1
    python benchmarks/refinement_ablation.py table              all that was trained, as Markdown
    python benchmarks/refinement_ablation.py export refine DIR  a trained row as a model to load

The backbone stays frozen: every row learns from the same cached maps (stage 5 of the embedded
network next to the folded stage 4, 768 channels), in the same batches, for the same steps, into 256
dimensions, and is scored on Twin Façades' test landmarks, which share no design with training.
`maps` takes about 0.3 s a photograph on one core, `train` a minute for 200 steps.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from refinement_rows import DIM, ROWS, describer
from torch import Tensor, nn

from spatial_retrieval.facades.data import TwinFacades, twin_facades
from spatial_retrieval.facades.scores import evaluate_twins
from spatial_retrieval.files import cache_dir, write_json
from spatial_retrieval.images import to_tensor
from spatial_retrieval.metrics.bootstrap import paired_bootstrap
from spatial_retrieval.models import ModelConfig, build_model
from spatial_retrieval.models.backbone import build_backbone
from spatial_retrieval.train import TrainConfig, train
from spatial_retrieval.train.checkpoint import load_state
from spatial_retrieval.train.data import TrainingData
from spatial_retrieval.train.map_set import MapSet, cache_maps
from spatial_retrieval.train.validation import encode

LAYER, SIZE = "stage5+stage4", 448


def photographs(split: str, options: argparse.Namespace) -> TwinFacades:
    landmarks, views = {
        "train": (options.landmarks, 4),
        "val": (60, 6),
        "test": (120, 6),
    }[split]
    return twin_facades(split, landmarks, views, size=SIZE)


def maps(split: str, options: argparse.Namespace) -> MapSet:
    """The cached maps of a split, made where they are missing."""
    data = photographs(split, options)
    backbone = build_backbone(layer=LAYER)

    class Images:  # decoded one after another, only where a shard is missing
        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, i: int) -> Tensor:
            return to_tensor(data.image(i))

    return cache_maps(
        options.root / f"{split}-{len(data.twin_of)}",
        Images(),
        backbone,
        labels=data.labels,
        about={"layer": LAYER, "size": SIZE, "split": split},
        twin_of=data.twin_of,
        difficulty=data.difficulty.tolist(),
        progress=True,
    )


def train_row(options: argparse.Namespace) -> None:
    data, val, test = (maps(split, options) for split in ("train", "val", "test"))
    torch.manual_seed(options.seed)
    model = describer(options.row, data)
    config = TrainConfig(
        output=str(_run_folder(options)),
        steps=options.steps,
        lr=options.lr,
        slower=(("whitening", 0.1),),
        seed=options.seed,
        precision="bf16",
        validate_every=options.steps,
        checkpoint_every=options.steps,
    )
    result = train(model, TrainingData(data, {"val": val}), config)
    scores = evaluate_twins(encode(model, test), photographs("test", options))
    report = {
        "row": options.row,
        "seed": options.seed,
        "lr": options.lr,
        "steps": options.steps,
        "landmarks": options.landmarks,
        "parameters": sum(p.numel() for p in model.pooled.parameters()),
        "seconds": round(result.seconds),
        "val": [result.history[-1]["val/map"], result.history[-1]["val/twin"]],
        "kinds": {k: scores.accuracy(kind=k).value for k in ("rows", "columns", "shuffle")},
        "levels": {k: scores.accuracy(level=k).value for k in "EMH"},
        "ap": scores.ap.tolist(),
        "correct": scores.correct.tolist(),
    }
    write_json(options.root / "scores" / f"{options.row}-{options.seed}-{options.lr}.json", report)
    what = f"{options.row} seed {options.seed} lr {options.lr}"
    found = f"test mAP {scores.map()}, twin accuracy {scores.accuracy()}"
    print(f"{what}: val mAP {report['val'][0]:.3f}, {found}")


def export(options: argparse.Namespace) -> None:
    """Write a trained row as `load_model` reads it, its three whitening layers folded into one."""
    state = load_state(_run_folder(options) / "best.pt")["model"]
    head = {k.removeprefix("pooled.head."): v for k, v in state.items() if ".head." in k}
    if "read_in.weight" not in head:
        raise SystemExit(f"expected a row with refinement, got {options.row}")
    layer = ROWS[options.row](head["read_in.weight"].shape[1])
    if not type(layer).__module__.startswith("spatial_retrieval."):
        raise SystemExit(f"expected a row with a layer of the library, got {options.row}")
    layer.load_state_dict(head)
    context = {"refinement": layer}
    model = build_model(ModelConfig(layer=LAYER, dim=DIM), context=context, pretrained=False)
    names = ("0.weight", "1.running_mean", "1.running_var", "2.weight")
    fixed, mean, var, turn = (state[f"whitening.{name}"] for name in names)
    scaled = turn / (var + nn.BatchNorm1d(1).eps).sqrt()  # (D, D)
    with torch.no_grad():
        model.whitening.weight.copy_(scaled @ fixed)
        shift = state["whitening.0.bias"] - mean
        model.whitening.bias.copy_(state["whitening.2.bias"] + scaled @ shift)
    model.save_pretrained(options.folder, half=True)


def table(options: argparse.Namespace) -> None:
    """Means over seeds, and each row's difference to `refine`, paired over twins."""
    data = photographs("test", options)
    queries = evaluate_twins(np.eye(len(data)), data).triplets[:, 0]
    pairs = data.labels // 2
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((options.root / "scores").glob("*.json")):
        report = json.loads(path.read_text())
        found.setdefault(report["row"], []).append(report)
    best = {row: _best_rate(reports) for row, reports in found.items()}
    means = {
        row: {key: np.mean([r[key] for r in reports], axis=0) for key in ("ap", "correct")}
        for row, reports in best.items()
    }
    print(f"| {' | '.join(_COLUMNS)} |")
    print("|---" * len(_COLUMNS) + "|")
    for row in (r for r in ROWS if r in best):
        cells = [row, *_cells(best[row], means[row])]
        if row != "refine" and "refine" in means:
            cells.append(paired_bootstrap(means["refine"]["ap"], means[row]["ap"], pairs))
            args = means["refine"]["correct"], means[row]["correct"], pairs[queries]
            cells.append(paired_bootstrap(*args))
        print("| " + " | ".join(str(c) for c in cells) + " |")


_COLUMNS = ("row", "seeds", "lr", "parameters", "mAP", "twin", "E", "M", "H")
_COLUMNS += ("rows", "columns", "shuffle", "refine is better by: mAP", "twin")


def _cells(reports: list[dict[str, Any]], means: dict[str, np.ndarray]) -> list[Any]:
    first = reports[0]
    cells = [len(reports), first["lr"], f"{first['parameters'] // 1000}k"]
    cells += [f"{100 * means[key].mean():.1f}" for key in ("ap", "correct")]
    for group in ("levels", "kinds"):
        cells += [f"{100 * np.mean([r[group][k] for r in reports]):.1f}" for k in first[group]]
    return cells


def _run_folder(options: argparse.Namespace) -> Path:
    return options.root / "runs" / f"{options.row}-{options.seed}-{options.lr}"


def _best_rate(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The reports of the learning rate with the best validation mAP."""
    rates: dict[float, list[dict[str, Any]]] = {}
    for report in reports:
        rates.setdefault(report["lr"], []).append(report)
    return max(rates.values(), key=lambda rs: np.mean([r["val"][0] for r in rs]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=cache_dir() / "refinement-ablation")
    parser.add_argument("--landmarks", type=int, default=600, help="to train on (600)")
    commands = parser.add_subparsers(required=True)
    render = commands.add_parser("maps", help="render and cache the maps")
    render.set_defaults(run=lambda o: [maps(split, o) for split in ("train", "val", "test")])
    for name, run, text in (
        ("train", train_row, "train and score one row"),
        ("export", export, "write a trained row as a model"),
    ):
        one = commands.add_parser(name, help=text)
        one.add_argument("row", choices=list(ROWS))
        one.add_argument("--seed", type=int, default=0)
        one.add_argument("--steps", type=int, default=200)
        one.add_argument("--lr", type=float, default=4e-3)
        one.set_defaults(run=run)
    one.add_argument("folder", type=Path)
    commands.add_parser("table", help="print what was trained").set_defaults(run=table)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
