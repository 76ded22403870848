"""Compare methods on Twin Façades test and on real photographs; print Markdown tables.

    python benchmarks/methods.py solar=lite0-solar spatial=lite0-spatial \
        --photographs val=FOLDER --photographs buildings=FOLDER --share 0.75 --against solar
    python benchmarks/methods.py spatial=runs/spatial-0/model,runs/spatial-1/model

A method is one model or several (seeds, whose scores are averaged photograph by photograph), given
by name or folder. Two tables for twins: the trained part alone, and beside ``lite0-gem`` with its
``--share`` of the similarity, all alike. Intervals are 95 % bootstraps over pairs of twins and over
the labels of photographs; differences are paired. The backbone sees each photograph once, whatever
the number of models; what a model says is kept in the cache.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from spatial_retrieval import RetrievalModel, list_images, load_model
from spatial_retrieval.evaluate.folder import FolderScores, folder_scores, split_folder
from spatial_retrieval.facades.data import twin_facades
from spatial_retrieval.facades.scores import TwinScores, evaluate_twins
from spatial_retrieval.features.extraction import load_tensor
from spatial_retrieval.files import atomic_writer, cache_dir
from spatial_retrieval.metrics.bootstrap import bootstrap_interval
from spatial_retrieval.models import fuse
from spatial_retrieval.train.objectives import side_by_side

PLAIN = "lite0-gem"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="+", metavar="NAME=MODEL[,MODEL]")
    parser.add_argument("--photographs", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--share", type=float, default=0.75, help="of the plain model (0.75)")
    parser.add_argument("--against", metavar="NAME", help="also the last method's gain over this")
    parser.add_argument("--landmarks", type=int, default=120)
    parser.add_argument("--views", type=int, default=6)
    args = parser.parse_args()

    methods = {name: models.split(",") for name, models in split(args.methods)}
    twins = twin_facades("test", landmarks=args.landmarks, views=args.views)
    folders = {name: Path(folder) for name, folder in split(args.photographs)}
    paths = {"twins": list(twins.paths)}
    paths |= {n: [folder / f for f in list_images(folder)] for n, folder in folders.items()}
    loaded = {m: load_model(m, device="cpu") for m in [PLAIN, *chain(*methods.values())]}
    rows = {name: described(loaded, files) for name, files in paths.items()}

    def beside(model: str, where: str) -> np.ndarray:
        own, plain = (torch.from_numpy(rows[where][m]) for m in (model, PLAIN))
        return side_by_side(own, plain, args.share).numpy()

    base = evaluate_twins(rows["twins"][PLAIN], twins)
    alone = {n: mean_of([evaluate_twins(rows["twins"][m], twins) for m in models])
             for n, models in methods.items()}  # fmt: skip
    whole = {n: mean_of([evaluate_twins(beside(m, "twins"), twins) for m in models])
             for n, models in methods.items()}  # fmt: skip
    print_twins("the trained part alone", {PLAIN: base, **alone}, args.against)
    print_twins(f"beside {PLAIN}, which has {args.share}", {PLAIN: base, **whole}, args.against)

    splits = {n: leave_one_out(list_images(folder)) for n, folder in folders.items()}
    print(f"\nPhotographs, leave-one-out macro mAP, %; beside {PLAIN}; time of the whole model")
    columns = ["method", *(f"{n} | Δ" for n in splits), "alone", "ms/image", "parameters"]
    print("| " + " | ".join(columns) + " |")
    print("|---" * (2 * len(splits) + 4) + "|")
    plain = {n: folder_scores(rows[n][PLAIN], one) for n, one in splits.items()}
    for name, models in {PLAIN: [PLAIN], **methods}.items():
        cells = [name]
        for where, one in splits.items():
            given = [rows[where][m] if m == PLAIN else beside(m, where) for m in models]
            scores = [folder_scores(x, one) for x in given]
            cells.append(f"{100 * np.mean([s.macro_map for s in scores]):.1f}")
            cells.append(difference(scores, plain[where]).signed())
        own = [np.mean([folder_scores(rows[n][m], s).macro_map for m in models])
               for n, s in splits.items()]  # fmt: skip
        model = loaded[models[0]]
        model = model if name == PLAIN or model.base else fuse(loaded[PLAIN], model, args.share)
        cells += [" / ".join(f"{100 * x:.1f}" for x in own), f"{milliseconds(model):.0f}"]
        print("| " + " | ".join([*cells, f"{parameters(model) / 1e6:.2f} M"]) + " |")


def split(texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """NAME=VALUE texts."""
    for text in texts:
        name, _, value = text.partition("=")
        yield name, value or name


def described(models: dict[str, RetrievalModel], files: list[Path]) -> dict[str, np.ndarray]:
    """Model → (N, D) unit rows of its own part, through one pass of the common backbone."""
    cache = cache_dir() / "methods"
    mark = f"{len(files)}-{files[0].parent.name}-{files[-1].stem}"
    store = {
        name: cache / f"{model.fingerprint()[:16]}-{mark}.npy" for name, model in models.items()
    }
    missing = {name: model for name, model in models.items() if not store[name].exists()}
    found: dict[str, list[np.ndarray]] = {name: [] for name in missing}
    layers = sorted({model.head.main.layers[0] for model in missing.values()})
    backbone = models[PLAIN].backbone
    with torch.inference_mode():
        for path in tqdm(files if missing else [], desc=mark):
            maps = dict(zip(layers, backbone.maps(load_tensor(path)[None], layers), strict=True))
            for name, model in missing.items():
                x = model.context(maps[model.head.main.layers[0]])
                found[name].append(model.descriptor(x)[0].numpy())
    for name, rows in found.items():
        with atomic_writer(store[name]) as file:
            np.save(file, np.stack(rows))
    return {name: np.load(path) for name, path in store.items()}


def mean_of(scores: list[TwinScores]) -> TwinScores:
    """Several seeds' scores, averaged photograph by photograph and triplet by triplet."""
    ap, correct = (np.mean([getattr(s, k) for s in scores], axis=0) for k in ("ap", "correct"))
    return replace(scores[0], ap=ap, correct=correct)


def print_twins(title: str, results: dict[str, TwinScores], against: str | None) -> None:
    """One row for each method."""
    data = results[PLAIN].data
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


def leave_one_out(files: list[str]):
    """Every photograph asks all others, whatever it is called."""
    return split_folder([f.replace("query", "photo") for f in files])


def difference(scores: list[FolderScores], plain: FolderScores):
    """Macro mAP minus the plain model's, resampled over labels."""
    ap = np.mean([s.ap_per_query for s in scores], axis=0) - plain.ap_per_query
    labels = plain.query_labels
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
