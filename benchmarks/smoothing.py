"""Speed and memory of Learnable Smoothing on this machine's CPU, as ratios.

    python benchmarks/smoothing.py              the table, about two minutes
    python benchmarks/smoothing.py --cpu-time   one thread by its processor time, on a busy machine
    python benchmarks/smoothing.py --quick      a small map, a few seconds, to see that it runs

Everything that is compared runs in turns within one process, and each keeps the best of its rounds:
a disturbed machine slows all of them, but hardly the best of every one. Memory is what torch's
allocator held at most at one time beyond the inputs, in sizes of the input map.
"""

import argparse
import os
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from time import perf_counter, thread_time

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler reports its own start otherwise

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from spatial_retrieval.layers.attention import SecondOrderAttention
from spatial_retrieval.layers.smoothing import LearnableSmoothing, smooth

Inputs = tuple[Tensor, ...]  # x, f, a, c, or x alone
Clock = Callable[[], float]


def unfold_smooth(x: Tensor, f: Tensor, a: Tensor, c: Tensor, *, kernel_size: int) -> Tensor:
    """The formula written down plainly: gather all neighbours (B, C, K², H, W), weigh, add up."""
    side, half = kernel_size, kernel_size // 2
    near, near_f, on_map = (
        F.unfold(t, side, padding=half).view(*t.shape[:2], -1, *t.shape[2:])
        for t in (x, f, torch.ones_like(a))
    )
    w = torch.exp(-a * (near_f - f.unsqueeze(2)).square().sum(1)) * on_map.squeeze(1)
    is_centre = torch.arange(side**2).view(1, -1, 1, 1) == side**2 // 2
    w = torch.where(is_centre, c, w)
    return (near * w.unsqueeze(1)).sum(2) / (w.sum(1, keepdim=True) + 1e-6)


def inputs(channels: int, side: int, feature_dim: int = 16) -> Inputs:
    torch.manual_seed(0)
    x = torch.rand(1, channels, side, side)
    f = 0.3 * torch.randn(1, feature_dim, side, side)
    return x, f, torch.rand(1, 1, side, side), torch.rand(1, 1, side, side)


def backward(function: Callable[..., Tensor], args: Inputs, pull: Tensor) -> None:
    leaves = [t.detach().requires_grad_() for t in args]
    torch.autograd.grad(function(*leaves), leaves, pull)


def modes(function: Callable[..., Tensor], args: Inputs) -> dict[str, Callable[[], None]]:
    """The forward pass alone, and with the backward pass from a gradient as a next layer gives."""
    with torch.no_grad():
        pull = torch.randn_like(function(*args))
    return {
        "forward": partial(forward, function, args),
        "forward + backward": partial(backward, function, args, pull),
    }


def forward(function: Callable[..., Tensor], args: Inputs) -> None:
    with torch.no_grad():
        function(*args)


def best_times(runs: dict[str, Callable[[], None]], rounds: int, clock: Clock) -> dict[str, float]:
    """Seconds of the best of ``rounds``, after one to warm up, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    return {name: min(all_of_them[1:]) for name, all_of_them in times.items()}


def peak_bytes(run: Callable[[], None]) -> int:
    """The most bytes that were allocated at one time while it ran, by torch's allocator.

    Inputs, and the gradient that the backward pass starts from, exist before and do not count.
    """
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    events = record.profiler.kineto_results.events()
    moves = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate(size for _, size in moves))


def against_unfold(channels: int, side: int, kernel_size: int, rounds: int, clock: Clock) -> None:
    args = inputs(channels, side)
    fast, slow = (partial(fn, kernel_size=kernel_size) for fn in (smooth, unfold_smooth))
    gap = (fast(*args) - slow(*args)).abs().max().item()
    print(f"\nC = {channels}, {side}×{side}, K = {kernel_size}; largest difference {gap:.1e}\n")
    print("| | unfold | here | ratio |\n|---|---|---|---|")
    ours, theirs = modes(fast, args), modes(slow, args)
    for label in ours:
        t = best_times({"slow": theirs[label], "fast": ours[label]}, rounds, clock)
        row = f"{1e3 * t['slow']:.0f} ms | {1e3 * t['fast']:.1f} ms | {t['slow'] / t['fast']:.1f} ×"
        print(f"| {label} | {row} |")
    for label in ours:
        few, many = (peak_bytes(m[label]) / (4 * args[0].numel()) for m in (ours, theirs))
        print(f"| {label}: peak | {many:.1f} maps | {few:.1f} maps | {many / few:.1f} × |")


def against_attention(channels: int, side: int, rounds: int, clock: Clock) -> None:
    x = inputs(channels, side)[:1]
    attention = modes(SecondOrderAttention(channels, reduction=2).eval(), x)
    layer = modes(LearnableSmoothing(channels, kernel_size=7).eval(), x)
    print("\nThe whole layer with its generator, K = 7, against SOLAR's attention, reduction 2\n")
    print("| | attention | smoothing | ratio |\n|---|---|---|---|")
    for label in layer:
        t = best_times({"a": attention[label], "s": layer[label]}, rounds, clock)
        row = f"{1e3 * t['a']:.0f} ms | {1e3 * t['s']:.1f} ms | 1 / {t['a'] / t['s']:.1f}"
        print(f"| {label} | {row} |")


def growth(channels: int, sides: tuple[int, ...], rounds: int, clock: Clock) -> None:
    print(f"\nCost by size of the map, C = {channels}, K = 7\n")
    print("| map | forward | per cell | forward + backward | per cell |\n|---|---|---|---|---|")
    for side in sides:
        t = best_times(modes(partial(smooth, kernel_size=7), inputs(channels, side)), rounds, clock)
        cells = [f"{1e3 * s:.1f} ms | {1e6 * s / side**2:.1f} µs" for s in t.values()]
        print(f"| {side}×{side} | {cells[0]} | {cells[1]} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small map and one round")
    parser.add_argument("--rounds", type=int, default=7, help="of which the best counts (7)")
    parser.add_argument("--threads", type=int, help="of torch; by default as many as cores")
    parser.add_argument("--cpu-time", action="store_true", help="one thread, processor time")
    options = parser.parse_args()
    clock = thread_time if options.cpu_time else perf_counter
    if options.threads or options.cpu_time:
        torch.set_num_threads(1 if options.cpu_time else options.threads)
    rounds = 1 if options.quick else options.rounds
    channels, side, sides = (64, 12, (8, 16)) if options.quick else (2048, 32, (16, 32, 64, 128))
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, batch of 1, "
        f"{'processor time' if options.cpu_time else 'wall clock'}"
    )
    for kernel_size in (7,) if options.quick else (7, 3):
        against_unfold(channels, side, kernel_size, rounds, clock)
    against_attention(channels, side, rounds, clock)
    growth(channels, sides, min(rounds, 3), clock)


if __name__ == "__main__":
    main()
