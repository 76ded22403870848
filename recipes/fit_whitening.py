"""Fit the PCA whitening of a model without one, and save the model that has it.

    python recipes/fit_whitening.py FOLDER [FOLDER …] --layer stage5+head --power 0.25 --dim 512 \
        -o spatial_retrieval/weights/lite0-gem

Each FOLDER holds photographs of any kind; no label is used.
"""

import argparse
from pathlib import Path

import torch

from spatial_retrieval import ModelConfig, build_model, list_images
from spatial_retrieval.features.extraction import describe_readable
from spatial_retrieval.layers.whitening import pca_whitening


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--layer", default="head")
    parser.add_argument("--p", type=float, default=3.0)
    parser.add_argument("--power", type=float, default=0.25)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()

    model = build_model(ModelConfig(backbone=args.backbone, layer=args.layer, p=args.p))
    paths = [folder / name for folder in args.folders for name in list_images(folder)]
    described = describe_readable(model, paths, size=args.size, progress=True)
    whitening = pca_whitening(torch.from_numpy(described.descriptors), power=args.power)
    model.with_whitening(whitening, args.dim).save_pretrained(args.output)
    print(f"{len(described.kept)} photographs → {args.output}")


if __name__ == "__main__":
    main()
