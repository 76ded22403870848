"""What the models are worth on photographs, with and without spatial verification.

    python benchmarks/photographs.py street=FOLDER val=FOLDER scenes=FOLDER:3 discs=FOLDER:3

Sub-folders are labels. ``:3`` keeps every third label of the sorted ones, from the first, those
that ``recipes/photographs.py --hold-out`` leaves out. Prints leave-one-out mAP in % (files named
query* are asked against the rest), 95 % paired bootstraps over labels, and what SIFT verification
of the first 100 adds to each model.
"""

import argparse
from pathlib import Path

import numpy as np

from spatial_retrieval import list_images, load_model
from spatial_retrieval.evaluate.folder import FolderSplit, split_folder
from spatial_retrieval.evaluate.runs import run_folder
from spatial_retrieval.metrics.bootstrap import paired_bootstrap
from spatial_retrieval.metrics.gap import gap_recovered

FIRST = "lite0-gem-v1"


def main() -> None:
    args = _arguments()
    models = [FIRST, *args.models]
    print("| set | photographs | " + " | ".join(f"{m} | + {args.rerank}" for m in models), end=" |")
    print(f" {models[-1]} − {models[-2]} | gap recovered | {args.rerank} still adds |")
    print("|---" * (2 * len(models) + 5) + "|")
    for text in args.sets:
        name, _, rest = text.partition("=")
        folder, _, every = rest.partition(":")
        print(row(name, *photographs(Path(folder), int(every or 1)), models, args), flush=True)


def row(
    name: str, paths: list[Path], split: FolderSplit, models: list[str], args: argparse.Namespace
) -> str:
    """One line of the table."""
    groups = split.labels[split.queries]
    plain, verified = [], []
    for model_name in models:
        model = load_model(model_name, device="cpu")
        for rows, rerank in ((plain, "none"), (verified, args.rerank)):
            run = run_folder(model, paths, split, size=args.size, rerank=rerank)
            rows.append(run.scores.ap_per_query)
    cells = [name, str(len(paths))]
    for before, after in zip(plain, verified, strict=True):
        cells += [f"{100 * np.nanmean(before):.1f}", f"{100 * np.nanmean(after):.1f}"]
    cells.append(paired_bootstrap(plain[-1], plain[-2], groups).signed())
    cells.append(str(gap_recovered(plain[-1], plain[0], verified[0], groups)))
    cells.append(paired_bootstrap(verified[-1], plain[-1], groups).signed())
    return "| " + " | ".join(cells) + " |"


def photographs(folder: Path, every: int) -> tuple[list[Path], FolderSplit]:
    """Paths and split of a folder, or of every n-th of its labels."""
    names = list_images(folder)
    labels = sorted({name.split("/")[0] for name in names})[::every]
    names = [name for name in names if name.split("/")[0] in labels]
    return [folder / name for name in names], split_folder(names)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", metavar="NAME=FOLDER[:N]")
    parser.add_argument("--models", nargs="+", default=["lite0-gem", "lite0-spatial"])
    parser.add_argument("--rerank", default="verify")
    parser.add_argument("--size", type=int, default=480)
    return parser.parse_args()


if __name__ == "__main__":
    main()
