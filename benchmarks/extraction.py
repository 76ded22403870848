"""What describing photographs costs, by this library and by the usual ways of doing it.

    python benchmarks/extraction.py [--folder FOLDER] [--images 200] [--size 480] [--model M]

All ways describe the same files with the same network, one after another in each round; the
medians of the rounds are shown, as milliseconds a photograph and as a ratio to the first:

batched     batches of equal shape, decoded by threads, the network over all cores (GPUs run so)
bare loop   decode, describe, next
one worker  batch 1 from a DataLoader with one worker, as cirtorch's and hloc's extraction does
describe    this library on a processor: one core for each photograph
onnx        the same with the backbone on ONNX Runtime, if that is installed
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from PIL import Image

from spatial_retrieval import describe, list_images, load_model
from spatial_retrieval.features import extraction
from spatial_retrieval.features.engine import with_engine
from spatial_retrieval.features.extraction import load_tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="photographs; default: drawn, of three shapes")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="lite0-gem")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or _drawn(Path(scratch), args.images)
        names = list_images(folder)
        chosen = np.random.default_rng(0).permutation(len(names))[: args.images]
        paths = [folder / names[i] for i in chosen]
        ways = _ways(args.model, args.size)
        times, rows = {name: [] for name in ways}, {}
        for _ in range(args.rounds):
            for name, way in ways.items():
                start = perf_counter()
                rows[name] = way(paths)
                times[name].append(1000 * (perf_counter() - start) / len(paths))
    print(f"{len(paths)} photographs at {args.size} px, {torch.get_num_threads()} threads")
    first = next(iter(ways))
    for name in ways:
        ratio = median(a / b for a, b in zip(times[first], times[name], strict=True))
        cosine = float((rows[first] * rows[name]).sum(axis=1).min())
        print(f"{name:11s} {median(times[name]):7.1f} ms  {ratio:5.2f} ×  cosine ≥ {cosine:.6f}")


def _ways(name: str, size: int) -> dict[str, Callable[[list[Path]], np.ndarray]]:
    model = load_model(name, device="cpu")
    ways = {
        "batched": lambda paths: _batched(model, paths, size),
        "bare loop": lambda paths: _loop(model, (load_tensor(p, size=size)[None] for p in paths)),
        "one worker": lambda paths: _loop(model, _loader(paths, size)),
        "describe": lambda paths: describe(model, paths, size=size),
    }
    try:
        fast = with_engine(model, "onnx")
    except (ImportError, ValueError) as error:
        print(error)
        return ways
    return {**ways, "onnx": lambda paths: describe(fast, paths, size=size)}


def _batched(model: torch.nn.Module, paths: list[Path], size: int) -> np.ndarray:
    rows = np.zeros((len(paths), model.dim), np.float32)
    for batch, output in extraction._batched(model, model, extraction._Work(paths, size, None)):
        rows[batch.positions] = output.numpy()
    return rows


@torch.inference_mode()
def _loop(model: torch.nn.Module, images: object) -> np.ndarray:
    return np.concatenate([model(x).numpy() for x in images])


class _Files(torch.utils.data.Dataset):
    def __init__(self, paths: list[Path], size: int) -> None:
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        return load_tensor(self.paths[i], size=self.size)


def _loader(paths: list[Path], size: int) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(_Files(paths, size), num_workers=1)


def _drawn(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    shapes = [(640, 480), (480, 640), (600, 450)]
    for i in range(count):
        coarse = rng.integers(0, 256, (45, 60, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(shapes[i % 3])
        image.save(folder / f"{i:04d}.jpg", quality=90)
    return folder


if __name__ == "__main__":
    main()
