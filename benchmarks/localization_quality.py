"""Where is the object? The seeded localization and its peers on drawn houses and on photographs.

Twin Façades: each easy photograph is a query, with the box of its mask; the gallery are the other
photographs of the same house, scored by their own difficulty. "absent" is the share of photographs
of another house that get a region at the score that keeps 90 % of the true medium ones, "twin" the
same for the house's twin.

    python benchmarks/localization_quality.py                                  the table, test split
    python benchmarks/localization_quality.py --model M --stage refined        after the refinement
    python benchmarks/localization_quality.py --calibrate                      threshold, validation
    python benchmarks/localization_quality.py --refine                         guided filter, same
    python benchmarks/localization_quality.py --photographs FOLDER             boxes of a manifest
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from localization_scenes import STAGES, Scene, manifest_scene, maps_of
from PIL import Image

from spatial_retrieval import load_model
from spatial_retrieval.facades.data import TwinFacades, twin_facades
from spatial_retrieval.localize import (
    THRESHOLD,
    Localization,
    find,
    fine_layer,
    on_photograph,
    prepare_photograph,
    regions,
)
from spatial_retrieval.localize.baselines import (
    center_box,
    flat_threshold,
    lost_region,
    responses,
    sift_box,
    whole_image,
)
from spatial_retrieval.metrics.bootstrap import bootstrap_interval, paired_bootstrap
from spatial_retrieval.metrics.localization import box_iou, mask_iou


def methods(scene: Scene) -> dict[str, Callable[[int, int], Localization]]:
    """Name → (query, gallery image) → what was found, in pixels."""
    size = lambda i: scene.photographs[i].size  # noqa: E731
    grid = lambda i: tuple(scene.maps[i].shape[1:])  # noqa: E731

    @cache
    def query(i, how):
        marks = {"box": {"box": scene.box(i)}, "points": {"points": _clicks(scene.masks[i])}}
        return prepare_photograph(scene.maps[i], size(i), **marks.get(how, {}))

    def seeded(how, q, g):
        return _large(find(query(q, how), scene.maps[g], limit=1), scene.photographs[g], True)

    def cells(function):
        return lambda q, g: _large(function(q, g), scene.photographs[g], False)

    return {
        "seeded, box": partial(seeded, "box"),
        "seeded, three points": partial(seeded, "points"),
        "seeded, no hint": partial(seeded, "auto"),
        "LOST": cells(lambda q, g: lost_region(scene.maps[g])),
        "flat threshold": cells(lambda q, g: flat_threshold(query(q, "box"), scene.maps[g])),
        "responses (CAM-like)": cells(lambda q, g: responses(scene.maps[g])),
        "SIFT + homography": lambda q, g: sift_box(
            scene.photographs[q], scene.box(q), scene.photographs[g]
        ),
        "centre box": cells(lambda q, g: center_box(grid(g))),
        "whole image": cells(lambda q, g: whole_image(grid(g))),
    }


def score(scene: Scene, method: Callable, pairs: np.ndarray) -> dict[str, np.ndarray]:
    """Per pair: mask IoU, box IoU, hit of the point, score."""
    rows = {"iou": [], "box": [], "point": [], "score": []}
    for q, g in pairs:
        found, truth = method(q, g), scene.masks[g]
        x, y = found.point
        rows["iou"].append(float(mask_iou(found.mask.numpy(), truth)))
        rows["box"].append(float(box_iou(found.box, scene.box(g))) if found.box else 0.0)
        rows["point"].append(bool(truth[int(y), int(x)]))
        rows["score"].append(found.score)
    return {key: np.array(value, dtype=float) for key, value in rows.items()}


def twins_table(scene: Scene, data: TwinFacades, names: Sequence[str] | None) -> None:
    """Print the table of the drawn houses."""
    sets = {level: pairs_of(data, level) for level in "EMH"}
    positive, absent, twin = sets["M"]
    print(f"{len(positive)} medium pairs, {len(absent)} absent, {len(twin)} twins; in %, [95 %]\n")
    print("| method | mask IoU E | M | H | pointing M | CorLoc M | absent | twin |")
    print("|---|---|---|---|---|---|---|---|")
    for name, method in methods(scene).items():
        if names and name not in names:
            continue
        by = {level: score(scene, method, sets[level][0]) for level in "EMH"}
        group = data.labels[positive[:, 0]] // 2
        bar = np.quantile(by["M"]["score"], 0.1)
        false = [100 * np.mean(score(scene, method, p)["score"] >= bar) for p in (absent, twin)]
        print(
            f"| {name} | {100 * by['E']['iou'].mean():.1f} "
            f"| {bootstrap_interval(by['M']['iou'], group)} | {100 * by['H']['iou'].mean():.1f} "
            f"| {100 * by['M']['point'].mean():.1f} | {100 * (by['M']['box'] >= 0.5).mean():.1f} "
            f"| {false[0]:.1f} | {false[1]:.1f} |",
            flush=True,
        )


def photographs_table(scene: Scene) -> None:
    """Print the table of real photographs: CorLoc, and its difference to the seeded method."""
    rng = np.random.default_rng(0)
    n = len(scene.photographs)
    pairs = np.array([(rng.choice(np.delete(np.arange(n), g)), g) for g in range(n)])
    print(f"{n} photographs, each with another one's box as the query; in %, [95 %]\n")
    print("| method | CorLoc | seeded, box minus this | box IoU |\n|---|---|---|---|")
    ours = None
    for name, method in methods(scene).items():
        box = score(scene, method, pairs)["box"]
        hits = (box >= 0.5).astype(float)
        ours = hits if ours is None else ours
        print(
            f"| {name} | {bootstrap_interval(hits)} | {paired_bootstrap(ours, hits)} "
            f"| {100 * box.mean():.1f} |",
            flush=True,
        )


def calibrate(scene: Scene, data: TwinFacades) -> None:
    """Print the score that one in ten photographs without the object reaches."""
    method = methods(scene)["seeded, box"]
    parts = {level: pairs_of(data, level) for level in "EMH"}
    absent = np.concatenate([score(scene, method, parts[level][1])["score"] for level in "EMH"])
    bar = np.quantile(absent, 0.9)
    kept = {k: np.mean(score(scene, method, p[0])["score"] >= bar) for k, p in parts.items()}
    print(f"threshold {bar:.3f}: 10 % of absent ones get a region, kept: {kept}")


def tune_filter(scene: Scene, data: TwinFacades) -> None:
    """Print the mask IoU for several settings of the guided filter."""
    pairs = pairs_of(data, "M")[0]
    for radius in (0.25, 0.5, 1.0):
        for eps in (1e-4, 1e-3, 1e-2):
            regions._RADIUS, regions._EPS = radius, eps
            value = score(scene, methods(scene)["seeded, box"], pairs)["iou"].mean()
            print(f"radius {radius} of a cell, eps {eps}: {100 * value:.1f}", flush=True)


def pairs_of(data: TwinFacades, level: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(query, gallery) of one gallery difficulty: the same house, another house, the twin."""
    same, other, twin = [], [], []
    for q in np.flatnonzero(data.difficulty == "E"):
        level_is = data.difficulty == level
        house = data.labels[q]
        same += [(q, g) for g in np.flatnonzero(level_is & (data.labels == house)) if g != q]
        twin += [(q, g) for g in np.flatnonzero(level_is & (data.labels == data.twin_of[house]))]
        away = np.flatnonzero(level_is & (data.labels // 2 != house // 2))
        other += [(q, g) for g in np.random.default_rng(q).choice(away, 2, replace=False)]
    return np.array(same), np.array(other), np.array(twin)


def _clicks(mask: np.ndarray) -> list[tuple[float, float]]:
    """Three points on the object: near its centre, and a quarter of its extent left and right."""
    rows, columns = np.nonzero(mask)
    wanted = [(np.quantile(columns, share), np.median(rows)) for share in (0.5, 0.25, 0.75)]
    nearest = [np.argmin((columns - x) ** 2 + (rows - y) ** 2) for x, y in wanted]
    return [(float(columns[i]), float(rows[i])) for i in nearest]


def _large(found: Localization, photograph: Image.Image, refine: bool) -> Localization:
    return on_photograph(found, photograph, refine=refine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lite0-gem")
    parser.add_argument("--stage", choices=STAGES, help="the model's own map; default: fine layer")
    parser.add_argument("--landmarks", type=int, default=60)
    parser.add_argument("--root", help="folder of the rendered photographs")
    parser.add_argument("--only", action="append", metavar="METHOD", help="these rows alone")
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--refine", action="store_true")
    parser.add_argument("--photographs", type=Path, metavar="FOLDER")
    parser.add_argument("--part", default="val/porto_camara")
    args = parser.parse_args()
    torch.manual_seed(0)
    start, model = time.perf_counter(), load_model(args.model)
    print(f"{args.model}, {args.stage or fine_layer(model.backbone)}, threshold {THRESHOLD}")
    if args.photographs:
        photographs_table(manifest_scene(model, args.photographs, args.stage, args.part))
    else:
        split = "val" if args.calibrate or args.refine else "test"
        data = twin_facades(split, args.landmarks, 6, root=args.root)
        photographs = [data.image(i) for i in range(len(data))]
        masks = [data.mask(i) for i in range(len(data))]
        scene = Scene(photographs, maps_of(model, photographs, args.stage), masks)
        if args.calibrate:
            calibrate(scene, data)
        elif args.refine:
            tune_filter(scene, data)
        else:
            twins_table(scene, data, args.only)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
