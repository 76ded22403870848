"""``whiten``: a model's whitening, learned on one's own photographs."""

import argparse
import sys
from pathlib import Path
from typing import Any

from spatial_retrieval.cli import CallError
from spatial_retrieval.cli.arguments import fraction, positive
from spatial_retrieval.cli.set_aside import report_set_aside

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("whiten", help="fit a model's whitening on own photographs")
    parser.add_argument("model", metavar="MODEL", help="name or folder of a model of one head")
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
    parser.add_argument(
        "--pairs", type=Path, metavar="DIR", help="SfM-120k's matching pairs, instead of folders"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL2")
    parser.add_argument(
        "--labels",
        choices=("folders", "none"),
        default="folders",
        help="sub-folders are labels (default), or none: PCA",
    )
    parser.add_argument("--dim", type=positive, default=512, help="length of a descriptor (512)")
    parser.add_argument(
        "--shrink", type=fraction, default=0.3, help="towards the identity, 0 … 1 (0.3)"
    )
    parser.add_argument("--size", type=positive, default=480, help="longest side, pixels (480)")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from spatial_retrieval.cli.retrieval import open_model

    if bool(args.folders) == (args.pairs is not None):
        raise CallError("expected folders of photographs, or --pairs DIR")
    model = open_model(args.model)
    fitted, count = _by_pairs(args, model) if args.pairs else _by_folders(args, model)
    fitted.save_pretrained(args.output)
    print(f"{count} photographs, {fitted.dim} numbers → {args.output}")


def _by_folders(args: argparse.Namespace, model: Any) -> tuple[Any, int]:
    from spatial_retrieval.train.whiten import fit_whitening

    paths, labels = _photographs(args)
    rows, kept = _pooled(args, model, paths)
    labels = None if labels is None else labels[kept]
    fitted = fit_whitening(model, rows[kept], labels, dim=args.dim, shrink=args.shrink)
    return fitted, int(kept.sum())


def _by_pairs(args: argparse.Namespace, model: Any) -> tuple[Any, int]:
    from spatial_retrieval.datasets.landmarks import load_sfm120k_whitening
    from spatial_retrieval.train.whiten import fit_pair_whitening

    images = load_sfm120k_whitening(args.pairs)
    rows, kept = _pooled(args, model, list(images.paths))
    both = kept[images.query_ids] & kept[images.positive_ids]
    pairs = images.query_ids[both], images.positive_ids[both]
    return fit_pair_whitening(model, rows, pairs, dim=args.dim), int(kept.sum())


def _pooled(args: argparse.Namespace, model: Any, paths: list[Path]) -> tuple[Any, Any]:
    """Pooled rows (N, ΣD), and which of the photographs could be read (N,) bool."""
    import numpy as np

    from spatial_retrieval.train.whiten import pooled_rows

    rows, failed = pooled_rows(model, paths, size=args.size, progress=sys.stderr.isatty())
    report_set_aside({str(paths[i]): reason for i, reason in failed.items()})
    return rows, np.array([i not in failed for i in range(len(paths))])


def _photographs(args: argparse.Namespace) -> tuple[list[Path], Any]:
    import numpy as np

    from spatial_retrieval.datasets.folders import labels_of, list_images

    paths, labels, count = [], [], 0
    for folder in args.folders:
        try:
            names = list_images(folder)
            if args.labels == "folders":
                numbers, found = labels_of(names)
                labels.append(numbers + count)
                count += len(found)
        except ValueError as error:
            raise CallError(f"{error} (without labels: --labels none)") from error
        paths += [folder / name for name in names]
    return paths, np.concatenate(labels) if labels else None
