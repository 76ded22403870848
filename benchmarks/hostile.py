"""Damaged and hostile inputs, thousands of each kind, in child processes with limits.

    python benchmarks/hostile.py --minutes 10 [--kinds image,pickle] [--seed 0] [--most 10000]

Input i of a kind is a sound file with 1 to 8 mutations drawn from (seed, kind, i), so each can be
made again: ``--only image:1234``. A child that dies is a crash, one that spends more than ten
seconds on an input a hang, one that raises what its reader does not promise has a wrong type, and
one that leaves a mark on disk has executed what it read.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from hostile_inputs import KINDS, input_of, read_input

HANG = 10.0  # seconds
MEMORY = 8 * 2**30  # bytes of address space above what the child starts with
PART = 500  # inputs that one child reads


def attack(kind: str, seed: int, numbers: range) -> Counter:
    """Read some inputs of a kind, each by a child that is replaced when it dies or hangs."""
    totals: Counter = Counter()
    start = numbers.start
    while start < numbers.stop:
        at = multiprocessing.Value("q", start)
        counts = multiprocessing.Array("q", 4)  # tried, refused, wrong types, executions
        child = multiprocessing.Process(
            target=_child, args=(kind, seed, range(start, numbers.stop), at, counts)
        )
        child.start()
        outcome = _watch(child, at)
        totals.update(dict(zip(("tried", "refused", "wrong", "executed"), counts, strict=True)))
        if not outcome:
            return totals
        totals.update([outcome, "tried"])
        print(f"{outcome}: --only {kind}:{at.value} (exit code {child.exitcode})", flush=True)
        start = at.value + 1
    return totals


def _watch(child: multiprocessing.Process, at) -> str:
    """Wait for a child: "" if it has ended well, else what became of it."""
    number, since = at.value, time.monotonic()
    while child.is_alive():
        child.join(0.05)
        if at.value != number:
            number, since = at.value, time.monotonic()
        elif time.monotonic() - since > HANG and child.is_alive():
            child.kill()
            child.join()
            return "hangs"
    return "" if child.exitcode == 0 else "crashes"


def _child(kind: str, seed: int, numbers: range, at, counts) -> None:
    _limit_memory()
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder, "executed")
        for number in numbers:
            at.value = number
            data = input_of(kind, seed, number, mark)
            wrong, refused = read_input(kind, data, Path(folder))
            if wrong:
                print(f"wrong type: --only {kind}:{number}: {wrong}", flush=True)
            for i, happened in enumerate((True, refused, bool(wrong), mark.exists())):
                counts[i] += happened
            mark.unlink(missing_ok=True)


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _table(totals: dict[str, Counter]) -> str:
    head = "| kind | inputs | refused | crashes | hangs > 10 s | wrong types | executions |"
    rows = [
        f"| {kind} | {n['tried']} | {n['refused']} | {n['crashes']} | {n['hangs']} "
        f"| {n['wrong']} | {n['executed']} |"
        for kind, n in totals.items()
    ]
    return "\n".join([head, "|---|---|---|---|---|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=10**9, help="inputs of a kind; images tenfold")
    parser.add_argument("--only", metavar="KIND:NUMBER", help="one input, in this process")
    args = parser.parse_args()
    if args.only:
        kind, number = args.only.split(":")
        with tempfile.TemporaryDirectory() as folder:
            data = input_of(kind, args.seed, int(number), Path(folder, "executed"))
            print(read_input(kind, data, Path(folder)))
        return
    multiprocessing.set_start_method("fork")
    with tempfile.TemporaryDirectory() as folder:  # imports count for no input
        for kind in args.kinds.split(","):
            read_input(kind, KINDS[kind].seeds("")[0], Path(folder))
    totals: dict[str, Counter] = {kind: Counter() for kind in args.kinds.split(",")}
    most = {kind: args.most * (10 if kind == "image" else 1) for kind in totals}
    until, part = time.monotonic() + 60 * args.minutes, 0
    while time.monotonic() < until and any(totals[k]["tried"] < most[k] for k in totals):
        for kind in totals:
            parts = 4 if kind == "image" else 1
            for number in range(part * parts, (part + 1) * parts):
                stop = min((number + 1) * PART, most[kind])
                if number * PART < stop and time.monotonic() < until:
                    totals[kind] += attack(kind, args.seed, range(number * PART, stop))
        part += 1
    print(_table(totals))
    bad = ("crashes", "hangs", "wrong", "executed")
    sys.exit(int(any(n[key] for n in totals.values() for key in bad)))


if __name__ == "__main__":
    main()
