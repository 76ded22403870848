"""Compare methods on Twin Façades test and on real photographs; print Markdown tables.

    python benchmarks/methods.py solar=lite0-solar spatial=lite0-spatial \
        --photographs val=FOLDER --photographs buildings=FOLDER --base-weight 0.75 --against solar
    python benchmarks/methods.py spatial=runs/spatial-0/model,runs/spatial-1/model

A method is one model or several (seeds, whose scores are averaged photograph by photograph), given
by name or folder. Two tables for twins: the trained head alone, and fused with ``lite0-gem``, which
has ``--base-weight`` of the similarity, all alike. Intervals are 95 % bootstraps over pairs of
twins and over the labels of photographs; differences are paired. The backbone sees each photograph
once, whatever the number of models; descriptors are kept in the cache.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from spatial_retrieval import RetrievalModel, list_images, load_model
from spatial_retrieval.evaluate.folder import (
    FolderScores,
    FolderSplit,
    folder_scores,
    split_folder,
)
from spatial_retrieval.facades.data import TwinFacades, twin_facades
from spatial_retrieval.facades.scores import TwinScores, evaluate_twins
from spatial_retrieval.features.extraction import load_tensor
from spatial_retrieval.files import atomic_writer, cache_dir
from spatial_retrieval.metrics.bootstrap import Interval, bootstrap_interval
from spatial_retrieval.models import fuse
from spatial_retrieval.train.objectives import fused_rows

BASE = "lite0-gem"


@dataclass(frozen=True)
class Rows:
    """Descriptors (N, D) by set and model, each of the model's own head."""

    alone: Mapping[str, Mapping[str, np.ndarray]]
    base_weight: float

    def fused(self, where: str, model: str) -> np.ndarray:
        """A model's descriptors with the base's in front; the base's own as they are."""
        own, base = (torch.from_numpy(self.alone[where][m]) for m in (model, BASE))
        return (own if model == BASE else fused_rows(own, base, self.base_weight)).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="+", metavar="NAME=MODEL[,MODEL]")
    parser.add_argument("--photographs", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--base-weight", type=float, default=0.75, help="of lite0-gem (0.75)")
    parser.add_argument("--against", metavar="NAME", help="also the last method's gain over this")
    parser.add_argument("--landmarks", type=int, default=120)
    parser.add_argument("--views", type=int, default=6)
    args = parser.parse_args()

    methods = {name: models.split(",") for name, models in split(args.methods)}
    twins = twin_facades("test", landmarks=args.landmarks, views=args.views)
    folders = {name: Path(folder) for name, folder in split(args.photographs)}
    paths = {"twins": list(twins.paths)}
    paths |= {n: [folder / f for f in list_images(folder)] for n, folder in folders.items()}
    loaded = {m: load_model(m, device="cpu") for m in [BASE, *chain(*methods.values())]}
    rows = Rows({n: described(loaded, files) for n, files in paths.items()}, args.base_weight)
    compare_twins(twins, rows, methods, args.against)
    splits = {n: leave_one_out(list_images(folder)) for n, folder in folders.items()}
    compare_folders(splits, rows, methods, loaded)


def compare_twins(
    twins: TwinFacades, rows: Rows, methods: Mapping[str, list[str]], against: str | None
) -> None:
    """Two tables: each method's head alone, and fused with the base."""
    base = {BASE: evaluate_twins(rows.alone["twins"][BASE], twins)}
    for title, find in (
        ("the trained head alone", lambda m: rows.alone["twins"][m]),
        (f"fused with {BASE}, base_weight {rows.base_weight}", lambda m: rows.fused("twins", m)),
    ):
        scores = {
            name: mean_of([evaluate_twins(find(m), twins) for m in models])
            for name, models in methods.items()
        }
        print_twins(title, base | scores, against)


def compare_folders(
    splits: Mapping[str, FolderSplit],
    rows: Rows,
    methods: Mapping[str, list[str]],
    loaded: Mapping[str, RetrievalModel],
) -> None:
    """One row for each method: photographs, time and size."""
    print(f"\nPhotographs, leave-one-out macro mAP, %; fused with {BASE}; time of the whole model")
    columns = ["method", *(f"{n} | Δ" for n in splits), "alone", "ms/image", "parameters"]
    print("| " + " | ".join(columns) + " |")
    print("|---" * (2 * len(splits) + 4) + "|")
    for name, models in {BASE: [BASE], **methods}.items():
        cells, alone = [name], []
        for where, one in splits.items():
            base = folder_scores(rows.alone[where][BASE], one)
            scores = [folder_scores(rows.fused(where, m), one) for m in models]
            cells.append(f"{100 * np.mean([s.macro_map for s in scores]):.1f}")
            cells.append(difference(scores, base).signed())
            own = [folder_scores(rows.alone[where][m], one).macro_map for m in models]
            alone.append(f"{100 * np.mean(own):.1f}")
        model = loaded[models[0]]
        whole = name == BASE or model.base is not None
        model = model if whole else fuse(loaded[BASE], model, rows.base_weight)
        cells += [" / ".join(alone), f"{milliseconds(model):.0f}"]
        print("| " + " | ".join([*cells, f"{parameters(model) / 1e6:.2f} M"]) + " |")


def split(texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """NAME=VALUE texts."""
    for text in texts:
        name, _, value = text.partition("=")
        yield name, value or name


def described(models: Mapping[str, RetrievalModel], files: Sequence[Path]) -> dict[str, np.ndarray]:
    """Model → (N, D) unit rows of its own head, through one pass of the common backbone."""
    mark = state_of(files)
    store = {
        name: cache_dir() / "methods" / f"{model.fingerprint()[:16]}-{mark}.npy"
        for name, model in models.items()
    }
    missing = {name: model for name, model in models.items() if not store[name].exists()}
    found: dict[str, list[np.ndarray]] = {name: [] for name in missing}
    layers = sorted({layer for model in missing.values() for layer in model.head.layers})
    backbone = models[BASE].backbone
    with torch.inference_mode():
        for path in tqdm(files if missing else [], desc="photographs"):
            maps = dict(zip(layers, backbone.maps(load_tensor(path)[None], layers), strict=True))
            for name, model in missing.items():
                found[name].append(model.head(maps)[0].numpy())
    for name, rows in found.items():
        with atomic_writer(store[name]) as file:
            np.save(file, np.stack(rows))
    return {name: np.load(path) for name, path in store.items()}


def state_of(files: Sequence[Path]) -> str:
    """Digest of which files these are, with their sizes and times."""
    stats = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:16]


def mean_of(scores: list[TwinScores]) -> TwinScores:
    """Several seeds' scores, averaged photograph by photograph and triplet by triplet."""
    ap, correct = (np.mean([getattr(s, k) for s in scores], axis=0) for k in ("ap", "correct"))
    return replace(scores[0], ap=ap, correct=correct)


def print_twins(title: str, results: dict[str, TwinScores], against: str | None) -> None:
    """One row for each method."""
    data = results[BASE].data
    print(
        f"\nTwin Façades test, {len(data.twin_of)} landmarks, {len(data)} photographs, %; {title}"
    )
    print("| method | mAP | E | M | H | twin accuracy | E | M | H |")
    print("|---" * 9 + "|")
    for name, one in results.items():
        cells = [name, str(one.map()), *(f"{100 * one.map(level).value:.1f}" for level in "EMH")]
        cells += [str(one.accuracy())]
        cells += [f"{100 * one.accuracy(level=level).value:.1f}" for level in "EMH"]
        print("| " + " | ".join(cells) + " |")
    if against:
        last = list(results)[-1]
        gains = [gain.signed() for gain in results[last].gain(results[against])]
        print(f"\n{last} over {against}: {gains[0]} mAP, {gains[1]} twin accuracy")


def leave_one_out(files: Sequence[str]) -> FolderSplit:
    """Every photograph asks all others, whatever it is called."""
    return split_folder([f.replace("query", "photo") for f in files])


def difference(scores: Sequence[FolderScores], base: FolderScores) -> Interval:
    """Macro mAP minus the base model's, resampled over labels."""
    ap = np.mean([s.ap_per_query for s in scores], axis=0) - base.ap_per_query
    labels = base.query_labels
    return bootstrap_interval([np.nanmean(ap[labels == k]) for k in np.unique(labels)])


def milliseconds(model: RetrievalModel, rounds: int = 15) -> float:
    """Median time of one 480×360 photograph, on this many threads."""
    image = torch.rand(1, 3, 360, 480)
    times = []
    with torch.inference_mode():
        for _ in range(rounds):
            start = time.perf_counter()
            model(image)
            times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def parameters(model: RetrievalModel) -> int:
    """Parameters outside the backbone."""
    return sum(p.numel() for n, p in model.named_parameters() if not n.startswith("backbone."))


if __name__ == "__main__":
    main()
