"""How long does one localization take? Seeds to masks over cached gallery maps.

    python benchmarks/localization.py            12 maps of 20×30 cells, 112 channels, 1 thread
    python benchmarks/localization.py --quick    the same, fewer rounds

One thread is enough: the pieces are too small to share, and on a busy machine two threads wait for
each other. "seeds → masks in cells" is the target: prepare the query, find it in all maps, masks
and boxes in cells. "at photograph size" adds edge-following masks of 480×320 pixels.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d

from spatial_retrieval.localize import find, on_photograph, prepare_query

TARGET_MS = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=int, default=12)
    parser.add_argument("--channels", type=int, default=112)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    query, gallery = _maps(args.channels, args.maps)
    photograph = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (320, 480, 3), dtype=np.uint8)
    )
    wall, cpu, large = [], [], []
    for _ in range(4 if args.quick else 20):
        start, start_cpu = time.perf_counter(), time.process_time()
        wanted = prepare_query(query, box=(6, 3, 22, 17))
        found = [find(wanted, x, limit=1) for x in gallery]
        wall.append(1000 * (time.perf_counter() - start))
        cpu.append(1000 * (time.process_time() - start_cpu))
        start = time.perf_counter()
        _ = [on_photograph(f, photograph) for f in found]
        large.append(1000 * (time.perf_counter() - start))
    print(f"torch {torch.__version__}, {args.threads} threads, {args.maps} maps 20×30")
    print(f"found in {sum(map(len, found))} of {args.maps} (in half of them it is there)\n")
    print("| | median | fastest | target |\n|---|---|---|---|")
    _row("seeds → masks in cells", wall, f"< {TARGET_MS:g} ms")
    _row("the same, processor time", cpu, "")
    _row("masks at photograph size", large, "")


def _row(name: str, values: list[float], target: str) -> None:
    print(f"| {name} | {statistics.median(values):.1f} ms | {min(values):.1f} ms | {target} |")


def _maps(channels: int, count: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A query and gallery maps; every other one shows the query's middle, moved and noisy."""
    torch.manual_seed(0)
    fresh = lambda: avg_pool2d(torch.randn(1, channels, 22, 32), 3, stride=1)[0]  # noqa: E731
    query = fresh()
    gallery = [fresh() for _ in range(count)]
    for k, x in enumerate(gallery[::2]):
        x[:, 2:16, 8 + k : 24 + k] = query[:, 3:17, 6:22] + 0.1 * torch.randn(channels, 14, 16)
    return query, gallery


if __name__ == "__main__":
    main()
