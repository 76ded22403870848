"""Fuse a trained model with its base: choose the base's weight on held-out data, save both as one.

    python recipes/join.py runs/lite0-spatial/model -o spatial_retrieval/weights/lite0-spatial \
        --photographs $SPATIAL_RETRIEVAL_SHARED/landmarks/val

The weight is the smallest from which on the leave-one-out mAP on the photographs is nowhere below
the base model's: photographs come first, twins get what is left. Prints the whole curve.
"""

import argparse
from pathlib import Path

import numpy as np

from spatial_retrieval import RetrievalModel, describe, list_images, load_model
from spatial_retrieval.datasets.folders import labels_of
from spatial_retrieval.facades.data import twin_facades
from spatial_retrieval.models import fuse
from spatial_retrieval.train.validation import leave_one_out_map, twin_accuracy

WEIGHTS = np.round(np.arange(0, 1.001, 0.05), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--base", default="lite0-gem")
    parser.add_argument("--photographs", type=Path, metavar="FOLDER", help="to choose on")
    parser.add_argument("--landmarks", type=int, default=60, help="of Twin Façades val (60)")
    parser.add_argument("--base-weight", type=float, help="take this weight, choose none")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    if args.base_weight is None and args.photographs is None:
        parser.error("expected --photographs to choose a weight on, or a --base-weight")

    base, model = (load_model(m, device="cpu") for m in (args.base, args.model))
    weight = args.base_weight
    if weight is None:
        weight = chosen(fuse(base, model, 0.5), base.dim, args.photographs, args.landmarks)
    fuse(base, model, weight).save_pretrained(args.output, half=True)
    print(f"base_weight {weight:.2f} → {args.output}")


def chosen(model: RetrievalModel, dim: int, photographs: Path, landmarks: int) -> float:
    """The smallest weight from which on nothing is lost on the photographs."""
    names = list_images(photographs)
    labels, _ = labels_of(names)
    rows = describe(model, [photographs / name for name in names])
    twins = twin_facades("val", landmarks=landmarks, views=6)
    houses = describe(model, list(twins.paths))
    curve = []
    for weight in WEIGHTS:
        curve.append(leave_one_out_map(mixed(rows, dim, weight), labels))
        x = mixed(houses, dim, weight)
        house = leave_one_out_map(x, twins.labels)
        accuracy = twin_accuracy(x, twins.labels, twins.twin_of, twins.difficulty)
        print(
            f"base_weight {weight:.2f}  photographs {100 * curve[-1]:5.1f}  "
            f"houses {100 * house:5.1f}  twin accuracy {100 * accuracy:5.1f}"
        )
    below = np.flatnonzero(np.array(curve) < curve[-1])
    return float(WEIGHTS[below[-1] + 1] if len(below) else WEIGHTS[0])


def mixed(rows: np.ndarray, dim: int, weight: float) -> np.ndarray:
    """The two halves of √½-weighted rows, weighted anew."""
    scale = np.sqrt(2 * np.array([weight, 1 - weight]))
    return np.hstack([scale[0] * rows[:, :dim], scale[1] * rows[:, dim:]])


if __name__ == "__main__":
    main()
