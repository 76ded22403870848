"""``train``: a recorded recipe, or a folder of photographs."""

import argparse
import sys
from pathlib import Path
from typing import Any

from spatial_retrieval.cli import CallError
from spatial_retrieval.cli.arguments import positive

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "train", help="train a model from a recipe (JSON) or on a folder of folders"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, metavar="FILE.json", help="a recorded recipe")
    what.add_argument(
        "--data", type=Path, metavar="FOLDER", help="sub-folders are landmarks; trains end to end"
    )
    parser.add_argument("--model", metavar="M", help="with --data: where to start (lite0-gem)")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="checkpoints and model")
    parser.add_argument("--steps", type=positive, metavar="N", help="optimizer steps")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument("--fresh", action="store_true", help="don't go on from a checkpoint")
    parser.set_defaults(run=_train)


def _train(args: argparse.Namespace) -> None:
    changes = {
        "output": str(args.output) if args.output else None,
        "steps": args.steps,
        "seed": args.seed,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    result = _recipe(args, changes) if args.config else _folder(args, changes)
    if result.interrupted:
        raise ValueError(
            f"interrupted after step {len(result.history)}; the same command goes on. The model "
            f"so far: {result.path}"
        )
    score = "" if result.best != result.best else f", {100 * result.best:.1f} % on held-out data"
    print(
        f"{len(result.history)} steps in {result.seconds:.0f} s, best at step {result.best_step}"
        f"{score} → {result.path}"
    )


def _recipe(args: argparse.Namespace, changes: dict[str, Any]) -> Any:
    from spatial_retrieval.train.recipe import Recipe

    if not args.config.is_file():
        raise CallError(f"{args.config}: no such recipe")
    if args.model:
        raise CallError("--model belongs to --data; a recipe says itself what it trains")
    recipe = Recipe.load(args.config, **changes)
    return recipe.run(callback=_progress(), resume=not args.fresh, progress=sys.stderr.isatty())


def _folder(args: argparse.Namespace, changes: dict[str, Any]) -> Any:
    from spatial_retrieval.models import load_model
    from spatial_retrieval.train import TrainConfig, train
    from spatial_retrieval.train.augment import strong_augmentation
    from spatial_retrieval.train.recipe import photo_folder

    if not args.data.is_dir():
        raise CallError(f"{args.data}: no such folder")
    photos = photo_folder(args.data, augment=strong_augmentation())
    landmarks = len(set(photos.labels.tolist()))
    numbers = {"output": f"runs/{args.data.name}", "groups": min(8, landmarks), "lr": 1e-4}
    try:
        model = load_model(args.model or "lite0-gem", device="cpu")
    except ValueError as error:
        raise CallError(f"--model: {error}") from error
    config = TrainConfig.from_json(numbers | changes)
    return train(model, photos, config, callback=_progress(), resume=not args.fresh)


def _progress() -> Any:
    """A callback that writes each tenth step, and all validations, to stderr."""

    def show(history: list[dict[str, float]]) -> None:
        row = history[-1]
        scores = {k: v for k, v in row.items() if "/" in k}
        if row["step"] % 10 and not scores:
            return
        tail = "".join(f"  {name} {100 * value:.1f}" for name, value in scores.items())
        print(f"step {row['step']:5.0f}  loss {row['loss']:.3f}{tail}", file=sys.stderr, flush=True)

    return show
