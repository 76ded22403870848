"""``models`` and ``adopt``: what can be named as a model, and official checkpoints taken over."""

import argparse
import json
from pathlib import Path
from typing import Any

from spatial_retrieval.cli import CallError

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Add both commands."""
    models = subparsers.add_parser("models", help="list what --model takes")
    models.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="own models, too")
    models.add_argument("--json", action="store_true", help="print JSON")
    models.set_defaults(run=_models)

    adopt = subparsers.add_parser("adopt", help="turn an official checkpoint into a model's folder")
    adopt.add_argument("file", type=Path, metavar="FILE", help=".pth, .pt or .safetensors")
    adopt.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    adopt.add_argument("--as", dest="kind", metavar="KIND", help="instead of recognising it")
    adopt.set_defaults(run=_adopt)


def _models(args: argparse.Namespace) -> None:
    from spatial_retrieval.models.listing import known_models

    for folder in args.folders:
        if not (folder / "config.json").is_file():
            raise CallError(f"{folder}: no model there (expected config.json)")
    rows = known_models(args.folders)
    if args.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    columns = ("name", "numbers", "licence", "megabytes", "from", "here")
    cells = [columns, *([str(row[c]) for c in columns] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )


def _adopt(args: argparse.Namespace) -> None:
    from spatial_retrieval.models.checkpoints import KINDS
    from spatial_retrieval.models.official import adopt_file

    if not args.file.is_file():
        raise CallError(f"{args.file}: no such file")
    if args.kind is not None and args.kind not in KINDS:
        raise CallError(f"--as: expected one of {', '.join(KINDS)}; got {args.kind!r}")
    model = adopt_file(args.file, args.output, kind=args.kind)
    protocol = model.card["protocol"]
    print(f"{model.card['name']} ({model.card['kind']}), {model.dim} numbers → {args.output}")
    print(f"weights: {model.card.get('weights_licence', 'licence not stated')}")
    for name in model.card.get("left_out", ()):
        print(f"left out: {name}")
    scales = ",".join(f"{scale:.4g}" for scale in protocol["scales"])
    print(
        f"as its authors measure: --protocol published (size {protocol['size']}, scales {scales})"
    )
