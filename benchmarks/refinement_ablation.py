"""What refinement and smoothing owe to their parts: one head after another, alike in all else.

    python benchmarks/refinement_ablation.py maps               render and cache the maps, once
    python benchmarks/refinement_ablation.py train refine       train and score one row
    python benchmarks/refinement_ablation.py train mlp --seed 1
    python benchmarks/refinement_ablation.py table              all that was trained, as Markdown
    python benchmarks/refinement_ablation.py export refine DIR  a trained row as a model to load

The backbone stays frozen: every row learns from the same cached maps (stage 5 of the embedded
network beside the folded stage 4, 768 channels), in the same batches, for the same steps, into 256
dimensions, and is scored on Twin Façades' test landmarks, which share no design with training.
`maps` takes about 0.3 s a photograph on one core, `train` a minute for 200 steps.
"""

import argparse
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spatial_retrieval.facades.data import TwinFacades, twin_facades
from spatial_retrieval.facades.scores import evaluate_twins
from spatial_retrieval.files import cache_dir, write_json
from spatial_retrieval.layers.attention import SecondOrderAttention
from spatial_retrieval.layers.controls import ConvolutionControl
from spatial_retrieval.layers.pooling import GeM
from spatial_retrieval.layers.refinement import SpatialContextRefinement
from spatial_retrieval.layers.smoothing import LearnableSmoothing
from spatial_retrieval.layers.whitening import pca_whitening
from spatial_retrieval.metrics.bootstrap import paired_bootstrap
from spatial_retrieval.models import ModelConfig, build_model
from spatial_retrieval.models.backbone import build_backbone
from spatial_retrieval.train import TrainConfig, train
from spatial_retrieval.train.checkpoint import load_checkpoint
from spatial_retrieval.train.data import LabelledSet, TrainingData
from spatial_retrieval.train.maps import cached_maps
from spatial_retrieval.train.validation import encode

LAYER, SIZE, DIM = "stage5+stage4", 448, 256
REFINE = {"nodes": 96, "width": 64}
ROWS: Mapping[str, Mapping[str, Any] | None] = {
    "gem": None,
    "solar": {"reduction": 8},
    "mlp": {"edges": "none"},
    "convolutions": {"width": 64},
    "refine": {},
    "undirected": {"displacement": "none"},
    "random": {"edges": "random"},
    "spatial": {"edges": "spatial"},
    "similarity": {"edges": "similarity"},
    "bias": {"displacement": "bias", "heads": 4},
    "attention": {"attention": True},
    "eight-sectors": {"sectors": 8},
    "far-rings": {"rings": (1.5, 3.0, 6.0, 12.0)},
    "one-block": {"blocks": 1},
    "three-blocks": {"blocks": 3},
    "64-nodes": {"nodes": 64},
    "all-nodes": {"nodes": None},
    "learned-nodes": {"select": "learned"},
    "built-once": {"rebuild": False},
    "wide": {"width": 128},
    "smoothing": {},
    "smoothing-average": {"bandwidth": 0.0, "confidence": 1.0},
    "smoothing-fixed-bandwidth": {"bandwidth": 1.0},
    "smoothing-no-confidence": {"confidence": 1.0},
    "smoothing-then-refine": {},
    "refine-then-smoothing": {},
}


class Unit(nn.Module):
    """(B, D) → unit rows."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) → (B, D)."""
        return nn.functional.normalize(x, dim=1)


class HideCells(nn.Module):
    """Sets up to ``share`` of a map's cells to 0 in training, like things in front of a house."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        if not self.training:
            return x
        limit = self.share * torch.rand(len(x), 1, 1, 1)
        return x * (torch.rand(len(x), 1, *x.shape[2:]) > limit)


def head(row: str, channels: int) -> nn.Module:
    """The layer that a row is about."""
    arguments = ROWS[row]
    if arguments is None:
        return nn.Identity()
    if row == "convolutions":
        return ConvolutionControl(channels, **arguments)
    if row == "solar":
        layer = SecondOrderAttention(channels, **arguments)
        nn.init.normal_(layer.v.weight, std=0.02)  # where the others start, too
        return layer
    if row.startswith("smoothing-then") or row.endswith("then-smoothing"):
        both = [LearnableSmoothing(channels), SpatialContextRefinement(channels, **REFINE)]
        return nn.Sequential(*(both if row.startswith("smoothing") else reversed(both)))
    if row.startswith("smoothing"):
        return LearnableSmoothing(channels, **arguments)
    return SpatialContextRefinement(channels, **{**REFINE, **arguments})


def describer(row: str, data: LabelledSet) -> nn.Sequential:
    """Head, GeM and a whitening that starts from the principal components of some maps."""
    channels = data[0, 0].shape[0]
    pooled = nn.Sequential(OrderedDict(hide=HideCells(0.2), head=head(row, channels), gem=GeM()))
    pooled.append(Unit())
    some = np.random.default_rng(0).permutation(len(data))[:800]
    x = torch.from_numpy(encode(pooled, data, indices=some))
    components = pca_whitening(x, power=0.0)
    dim = min(DIM, channels)
    spread = components.linear(dim)(x).detach().std(dim=0)
    turn = nn.Linear(dim, dim)
    with torch.no_grad():
        turn.weight.copy_(torch.diag((spread / spread[0]) ** 0.25))
        turn.bias.zero_()
    fixed = components.linear(dim).requires_grad_(False)
    whitening = nn.Sequential(fixed, nn.BatchNorm1d(dim, affine=False), turn)
    return nn.Sequential(OrderedDict(pooled=pooled, whitening=whitening, unit=Unit()))


def photographs(split: str, options: argparse.Namespace) -> TwinFacades:
    landmarks, views = {
        "train": (options.landmarks, 4),
        "val": (60, 6),
        "test": (120, 6),
    }[split]
    return twin_facades(split, landmarks, views, size=SIZE, workers=1)


def maps(split: str, options: argparse.Namespace) -> LabelledSet:
    """The cached maps of a split, made where they are missing."""
    return cached_maps(photographs(split, options), build_backbone(layer=LAYER), progress=True)


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
    print(f"{options.row} seed {options.seed} lr {options.lr}: val mAP {report['val'][0]:.3f}, "
          f"test mAP {scores.map()}, twin accuracy {scores.accuracy()}")  # fmt: skip


def export(options: argparse.Namespace) -> None:
    """Write a trained row as `load_model` reads it, its three whitening layers folded into one."""
    if options.row in ("gem", "solar", "convolutions") or "smoothing" in options.row:
        raise SystemExit(f"expected a row with refinement, got {options.row}")
    state = load_checkpoint(_run_folder(options) / "best.pt")["model"]
    layer = ("refinement", {**REFINE, **ROWS[options.row]})
    model = build_model(ModelConfig(layer=LAYER, context=(layer,), dim=DIM), pretrained=False)
    head = {k.removeprefix("pooled.head."): v for k, v in state.items() if ".head." in k}
    model.context.refinement.load_state_dict(head)
    fixed, mean, var, turn = (state[f"whitening.{name}"] for name in (
        "0.weight", "1.running_mean", "1.running_var", "2.weight"))  # fmt: skip
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
    print("| row | seeds | lr | parameters | mAP | twin | E | M | H | rows | columns | shuffle | "
          "refine is better by: mAP | twin |")  # fmt: skip
    print("|---" * 14 + "|")
    for row in (r for r in ROWS if r in best):
        reports, first = best[row], best[row][0]
        cells = [row, len(reports), first["lr"], f"{first['parameters'] // 1000}k"]
        cells += [f"{100 * means[row][key].mean():.1f}" for key in ("ap", "correct")]
        for group in ("levels", "kinds"):
            cells += [f"{100 * np.mean([r[group][k] for r in reports]):.1f}" for k in first[group]]
        if row != "refine" and "refine" in means:
            cells.append(paired_bootstrap(means["refine"]["ap"], means[row]["ap"], pairs))
            args = means["refine"]["correct"], means[row]["correct"], pairs[queries]
            cells.append(paired_bootstrap(*args))
        print("| " + " | ".join(str(c) for c in cells) + " |")


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
