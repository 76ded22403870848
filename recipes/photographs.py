"""The whitenings of the shipped models: on photographs with labels, and on rendered houses.

    python recipes/photographs.py lite0-gem FOLDER [FOLDER …] -o mine
    python recipes/photographs.py lite0-spatial FOLDER [FOLDER …] -o mine --parts lite0-spatial

Each FOLDER holds sub-folders that are labels. So that a few large labels don't decide, no more than
60 photographs of a label are taken (``--most``), and with ``--hold-out NAME`` every third label of
the folder NAME (of the sorted ones, from the first) is left for tests. ``lite0-spatial``'s trained
layers (self-confidence, graph, principal axes) come from ``--parts``: a saved model, or the folder
of a run of ``train_context.py``. The shipped weights: landmarks/{train,places,scenes,discs},
--hold-out scenes --hold-out discs.
"""

import argparse
from pathlib import Path

import numpy as np
from torch import nn

from spatial_retrieval import list_images, load_model, twin_facades
from spatial_retrieval.datasets.folders import labels_of
from spatial_retrieval.layers.cell_weights import TrustedRarity
from spatial_retrieval.layers.pooling import GeM, RegionalGeM
from spatial_retrieval.layers.refinement import SpatialContextRefinement
from spatial_retrieval.layers.second_order import SecondOrderPooling
from spatial_retrieval.models import Branch, Head, RetrievalModel
from spatial_retrieval.models.backbone import build_backbone
from spatial_retrieval.train.whiten import balance, fit_whitening, pooled_rows

FINE = "stage5+stage4"  # 320 + 4 · 112 channels at stride 32
# how much each branch counts: its rows' mean distance from their mean
WEIGHTS = {"lite0-gem": (1.0, 1.0), "lite0-spatial": (0.75, 0.46, 1.0, 0.7, 0.5, 0.45)}


def main() -> None:
    args = _arguments()
    paths, labels = photographs(args.folders, most=args.most, hold_out=args.hold_out)
    houses = twin_facades("train", landmarks=600, views=4)
    chosen = np.flatnonzero(houses.labels < args.houses)
    paths += [houses.paths[i] for i in chosen]
    labels = np.concatenate([labels, labels.max() + 1 + houses.labels[chosen]])
    model = gem_model() if args.name == "lite0-gem" else spatial_model(args.parts)
    rows, failed = pooled_rows(model, paths, progress=True)
    kept = np.array([i not in failed for i in range(len(paths))])
    rows = balance(model, rows[kept], WEIGHTS[args.name])
    fitted = fit_whitening(model, rows, labels[kept], dim=args.dim, shrink=args.shrink)
    fitted.save_pretrained(args.output, half=True)
    print(f"{kept.sum()} photographs, {fitted.dim} numbers → {args.output}")


def gem_model() -> RetrievalModel:
    """GeM of head and stage 5, to be whitened."""
    return _model([Branch("head", GeM()), Branch("stage5", GeM())])


def spatial_model(parts: str) -> RetrievalModel:
    """Regional GeM, second order of three maps and the graph, with a model's trained layers."""
    graph = SpatialContextRefinement(768, nodes=98, width=64)
    branches = [
        Branch("head", RegionalGeM()),
        Branch("stage5", RegionalGeM()),
        Branch("stage4", SecondOrderPooling(112, weigh=TrustedRarity(112))),
        Branch(FINE, SecondOrderPooling(768, project=64)),
        Branch("stage5", SecondOrderPooling(320, project=64)),
        Branch(FINE, GeM(), context={"refinement": graph}),
    ]
    model = _model(branches)
    trained = {k: v for k, v in load_model(parts, device="cpu").head.state_dict().items()}
    model.head.branches.load_state_dict(
        {k.removeprefix("branches."): v for k, v in trained.items() if k.startswith("branches.")}
    )
    return model


def photographs(
    folders: list[Path], *, most: int, hold_out: list[str]
) -> tuple[list[Path], np.ndarray]:
    """Paths and labels (N,) of folders of labels; every third label of some folders left out."""
    paths, labels, count = [], [], 0
    for folder in folders:
        names = list_images(folder)
        numbers, found = labels_of(names)
        for label in range(len(found)):
            if folder.name in hold_out and label % 3 == 0:
                continue
            taken = np.flatnonzero(numbers == label)[:most]
            paths += [folder / names[i] for i in taken]
            labels += [count + label] * len(taken)
        count += len(found)
    return paths, np.array(labels)


def _model(branches: list[Branch]) -> RetrievalModel:
    source = {"name": "efficientnet_lite0", "layer": "head"}
    return RetrievalModel(build_backbone(), Head(branches, nn.Identity()), source=source).eval()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(WEIGHTS))
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--parts", default="lite0-spatial", metavar="MODEL")
    parser.add_argument("--most", type=int, default=60, help="photographs of a label (60)")
    parser.add_argument("--hold-out", action="append", default=[], metavar="NAME")
    parser.add_argument("--houses", type=int, default=120, help="rendered training houses (120)")
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--shrink", type=float, default=0.2)
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
