"""Time and memory of spatial context-aware refinement against SOLAR's attention, as ratios.

    python benchmarks/refinement.py              the tables, about a minute
    python benchmarks/refinement.py --cpu-time   one thread by its processor time, on a busy machine
    python benchmarks/refinement.py --quick      small maps, a few seconds, to see that it runs

Both blocks see the same map. They run in turns within one process and each keeps the best of its
rounds, see benchmarks/smoothing.py.
"""

import argparse
from collections.abc import Callable
from functools import partial
from time import perf_counter, thread_time

import torch
from smoothing import Clock, best_times, peak_bytes
from torch import Tensor, nn

from spatial_retrieval.layers.attention import SecondOrderAttention
from spatial_retrieval.layers.refinement import SpatialContextRefinement

TARGET = 0.5


def forward(layer: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        layer(x)


def step(layer: nn.Module, x: Tensor) -> None:
    layer.zero_grad()
    layer(x).sum().backward()


def against_attention(
    channels: int, side: int, nodes: int, width: int, rounds: int, clock: Clock
) -> None:
    torch.manual_seed(0)
    x = torch.rand(1, channels, side, side)
    solar = SecondOrderAttention(channels, reduction=2).eval()
    refine = SpatialContextRefinement(channels, nodes=nodes, width=width).eval()
    sizes = [sum(p.numel() for p in layer.parameters()) / 1e6 for layer in (solar, refine)]
    print(f"\nC = {channels}, {side}×{side}, K = {nodes}, width {width}, 2 blocks; ", end="")
    print(f"parameters {sizes[1]:.2f} M against {sizes[0]:.2f} M with m = {channels // 2}\n")
    print("| | SOLAR | refinement | ratio | target |\n|---|---|---|---|---|")
    for label, mode in (("forward", forward), ("forward + backward", step)):
        runs = {"solar": partial(mode, solar, x), "refine": partial(mode, refine, x)}
        t = best_times(runs, rounds, clock)
        row = f"{1e3 * t['solar']:.0f} ms | {1e3 * t['refine']:.0f} ms"
        print(f"| {label} | {row} | {t['refine'] / t['solar']:.2f} | ≤ {TARGET} |")
        m = {name: peak_bytes(run) / (4 * x.numel()) for name, run in runs.items()}
        row = f"{m['solar']:.1f} maps | {m['refine']:.1f} maps"
        print(f"| {label}: peak memory | {row} | {m['refine'] / m['solar']:.2f} | |")


def growth(
    title: str,
    values: tuple[int, ...],
    make: Callable[[int], tuple[nn.Module, Tensor]],
    rounds: int,
    clock: Clock,
) -> None:
    print(f"\n{title}\n\n| | forward | peak memory |\n|---|---|---|")
    for value in values:
        layer, x = make(value)
        run = partial(forward, layer.eval(), x)
        time = best_times({"it": run}, rounds, clock)["it"]
        print(f"| {value} | {1e3 * time:.1f} ms | {peak_bytes(run) / 2**20:.1f} MiB |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small maps and one round")
    parser.add_argument("--rounds", type=int, default=7, help="of which the best counts (7)")
    parser.add_argument("--threads", type=int, help="of torch; by default as many as cores")
    parser.add_argument("--cpu-time", action="store_true", help="one thread, processor time")
    options = parser.parse_args()
    clock = thread_time if options.cpu_time else perf_counter
    if options.threads or options.cpu_time:
        torch.set_num_threads(1 if options.cpu_time else options.threads)
    rounds = 1 if options.quick else options.rounds
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, batch of 1")
    side, nodes = (8, 16) if options.quick else (32, 256)
    for channels in (64,) if options.quick else (1280, 2048):
        for width in (64,) if options.quick else (64, 128):
            against_attention(channels, side, nodes, width, rounds, clock)
    channels = 64 if options.quick else 1280
    growth(
        f"Growth with K, C = {channels}, {side}×{side}, width 128",
        (4, 16) if options.quick else (64, 128, 256, 512, 1024),
        lambda k: (
            SpatialContextRefinement(channels, nodes=k),
            torch.rand(1, channels, side, side),
        ),
        min(rounds, 3),
        clock,
    )
    growth(
        f"Growth with the side H = W of the map, C = {channels}, K = {nodes}, width 128",
        (8, 12) if options.quick else (16, 32, 64, 128),
        lambda s: (SpatialContextRefinement(channels, nodes=nodes), torch.rand(1, channels, s, s)),
        min(rounds, 3),
        clock,
    )


if __name__ == "__main__":
    main()
