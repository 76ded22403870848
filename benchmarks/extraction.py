"""What description costs beyond the backbone: photographs on disk against tensors in memory.

    python benchmarks/extraction.py [--folder FOLDER] [--images 200] [--size 480]

Prints the seconds of the bare backbone forward on the decoded tensors (in the same batches), of
``describe`` on the files (decoding, batching, pooling, whitening included), and their ratio. Both
run alternately in one process; the medians of the rounds are shown.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from PIL import Image

from spatial_retrieval import describe, list_images, load_model
from spatial_retrieval.features.extraction import load_tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="photographs; default: drawn noise, 480×360")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="lite0-gem")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or _drawn(Path(scratch), args.images)
        paths = [folder / name for name in list_images(folder)][: args.images]
        model = load_model(args.model)
        tensors = sorted((load_tensor(p, size=args.size) for p in paths), key=lambda t: t.shape)
        _forward(model, tensors)  # each new shape is planned once; that is not what is measured
        bare, whole = [], []
        for _ in range(args.rounds):
            bare.append(_forward(model, tensors))
            start = perf_counter()
            describe(model, paths, size=args.size)
            whole.append(perf_counter() - start)
    print(f"{len(paths)} photographs at {args.size} px, {torch.get_num_threads()} threads")
    print(f"backbone alone  {median(bare):7.2f} s")
    print(f"describe        {median(whole):7.2f} s")
    print(f"ratio           {median(w / b for w, b in zip(whole, bare, strict=True)):7.2f}")


def _forward(model: torch.nn.Module, tensors: list[torch.Tensor], batch_size: int = 8) -> float:
    """Seconds of the backbone on the tensors, in batches of equal shape."""
    batches: dict[tuple[int, ...], list[list[torch.Tensor]]] = {}
    for tensor in tensors:
        groups = batches.setdefault(tuple(tensor.shape), [[]])
        if len(groups[-1]) == batch_size:
            groups.append([])
        groups[-1].append(tensor)
    start = perf_counter()
    with torch.inference_mode():
        for groups in batches.values():
            for group in groups:
                model.backbone(torch.stack(group).to(model.device))
    return perf_counter() - start


def _drawn(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = rng.integers(0, 256, (45, 60, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((480, 360)).save(folder / f"{i:04d}.jpg", quality=90)
    return folder


if __name__ == "__main__":
    main()
