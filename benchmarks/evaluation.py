"""Time of the revisited protocol on rankings of 70 queries; prints a table.

    python benchmarks/evaluation.py [--images 1000000]

The ground truth is ROxford's in size: 70 queries, 4993 images of which some are easy, hard or junk;
the rest of the database are distractors. The loop next to it walks down each list once.
"""

import argparse
from time import perf_counter

import numpy as np

from spatial_retrieval.datasets.revisited import RevisitedGroundTruth
from spatial_retrieval.metrics.revisited import PROTOCOLS, protocol_split, revisited_scores

QUERIES, ANNOTATED = 70, 4993


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    images = parser.parse_args().images
    rng = np.random.default_rng(0)
    truth = _truth(rng)
    ids = np.stack([rng.permutation(images) for _ in range(QUERIES)])
    print(f"{QUERIES} queries, rankings of {images:,} images, all three protocols")
    start = perf_counter()
    maps = [revisited_scores(ids, truth, protocol).map for protocol in PROTOCOLS]
    fast = perf_counter() - start
    start = perf_counter()
    again = [_loop(ids[:5], truth, protocol) for protocol in PROTOCOLS]
    slow = (perf_counter() - start) * QUERIES / 5
    agree = [
        np.allclose(revisited_scores(ids, truth, p).ap_per_query[:5], a, equal_nan=True)
        for p, a in zip(PROTOCOLS, again, strict=True)
    ]
    print(f"{'revisited_scores':24}{fast:8.2f} s")
    print(f"{'plain loop (from 5)':24}{slow:8.2f} s   {slow / fast:.1f} × as long")
    print(f"{'largest ranking':24}{ids.nbytes / 2**20:8.0f} MiB")
    print(f"the same AP: {all(agree)}; mAP {', '.join(f'{m:.2e}' for m in maps)}")


def _truth(rng: np.random.Generator) -> RevisitedGroundTruth:
    parts = [np.split(rng.permutation(ANNOTATED)[:150], [40, 100]) for _ in range(QUERIES)]
    easy, hard, junk = zip(*parts, strict=True)
    return RevisitedGroundTruth(
        names=tuple(f"image_{i}" for i in range(ANNOTATED)),
        query_names=tuple(f"query_{q}" for q in range(QUERIES)),
        boxes=np.tile([0.0, 0, 1, 1], (QUERIES, 1)),
        easy=easy,
        hard=hard,
        junk=junk,
    )


def _loop(ids: np.ndarray, truth: RevisitedGroundTruth, protocol: str) -> list[float]:
    positives, ignored = protocol_split(truth, protocol)
    aps = []
    for row, good, out in zip(ids.tolist(), positives, ignored, strict=False):
        good, out = set(good.tolist()), set(out.tolist())
        ap, hits, rank, before = 0.0, 0, 0, 1.0
        for image in row:
            if image in out:
                continue
            hits += image in good
            if image in good:
                ap += (before + hits / (rank + 1)) / 2 / len(good)
            rank += 1
            before = hits / rank
        aps.append(ap)
    return aps


if __name__ == "__main__":
    main()
