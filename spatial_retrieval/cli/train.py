"""``train``: a recorded recipe, a folder of photographs, or a published set."""

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
        "train",
        help="train a model from a recipe (JSON), on a folder of folders or a published set",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, metavar="FILE.json", help="a recorded recipe")
    what.add_argument(
        "--data",
        metavar="FOLDER|sfm120k|gldv2",
        help="sub-folders are landmarks, or a published set; trains end to end",
    )
    parser.add_argument(
        "--photographs",
        metavar="FOLDER|none",
        help="with --config: take its instances from this folder, or train without any",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="with --data sfm120k|gldv2: where it is (the cache)",
    )
    parser.add_argument("--model", metavar="M", help="with --data: where to start (lite0-gem)")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="checkpoints and model")
    parser.add_argument("--steps", type=positive, metavar="N", help="optimizer steps")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument("--fresh", action="store_true", help="don't go on from a checkpoint")
    parser.set_defaults(run=_train)


def _train(args: argparse.Namespace) -> None:
    _check(args)
    changes = {
        "output": str(args.output) if args.output else None,
        "steps": args.steps,
        "seed": args.seed,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    result = _recipe(args, changes) if args.config else _photographs(args, changes)
    if result.interrupted:
        raise ValueError(
            f"interrupted after step {len(result.history)}; the same command goes on. The model "
            f"so far: {result.path}"
        )
    score = "" if result.best != result.best else f", {100 * result.best:.1f} % on held-out data"
    from spatial_retrieval.train.processes import processes

    if processes().is_main_process:
        print(
            f"{len(result.history)} steps in {result.seconds:.0f} s, best at step "
            f"{result.best_step}{score} → {result.path}"
        )


def _check(args: argparse.Namespace) -> None:
    if args.config and not args.config.is_file():
        raise CallError(f"{args.config}: no such recipe")
    if args.config and (args.model or args.root):
        raise CallError("--model and --root belong to --data; a recipe says what it trains")
    if args.data and args.photographs:
        raise CallError("--photographs belongs to --config; --data says itself what is trained on")
    if args.photographs not in (None, "none") and not Path(args.photographs).is_dir():
        raise CallError(f"--photographs: {args.photographs}: no such folder")


def _recipe(args: argparse.Namespace, changes: dict[str, Any]) -> Any:
    from spatial_retrieval.train.recipe import Recipe

    recipe = Recipe.load(args.config, **changes)
    if args.photographs:
        recipe = recipe.with_photographs(args.photographs)
    return recipe.run(callback=_progress(), resume=not args.fresh, progress=sys.stderr.isatty())


def _photographs(args: argparse.Namespace, changes: dict[str, Any]) -> Any:
    from spatial_retrieval.models import load_model
    from spatial_retrieval.train import TrainConfig, train

    photos = _photo_set(args)
    landmarks = len(set(photos.labels.tolist()))
    output = f"runs/{Path(args.data).name}"
    numbers = {"output": output, "groups": min(8, landmarks), "lr": 1e-4}
    try:
        model = load_model(args.model or "lite0-gem", device="cpu")
    except ValueError as error:
        raise CallError(f"--model: {error}") from error
    config = TrainConfig.from_json(numbers | changes)
    return train(model, photos, config, callback=_progress(), resume=not args.fresh)


def _photo_set(args: argparse.Namespace) -> Any:
    """The photographs that ``--data`` names: a published set, or else a folder."""
    from spatial_retrieval.datasets.download import default_root
    from spatial_retrieval.train.augment import strong_augmentation
    from spatial_retrieval.train.photographs import PUBLISHED_SETS, photo_folder, published_photos

    augment = strong_augmentation()
    if args.data in PUBLISHED_SETS:
        return published_photos(args.data, args.root or default_root(), augment=augment)
    if args.root:
        raise CallError(f"--root belongs to --data {' or '.join(PUBLISHED_SETS)}, got {args.data}")
    if not Path(args.data).is_dir():
        raise CallError(f"{args.data}: no such folder; published sets: {', '.join(PUBLISHED_SETS)}")
    return photo_folder(args.data, augment=augment)


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
