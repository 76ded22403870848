"""Compare methods on Twin Façades test and on real photographs; print two Markdown tables.

    python benchmarks/methods.py lite0-gem lite0-solar lite0-smooth lite0-refine lite0-spatial \
        --photographs val=FOLDER --photographs buildings=FOLDER --reference lite0-gem

Models are names or folders. Intervals are 95 % bootstraps, over pairs of twins and over the labels
of photographs; differences to the reference are paired. ``--own`` leaves out the plain part that a
model has beside its own.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from spatial_retrieval import RetrievalModel, describe, list_images, load_model
from spatial_retrieval.data.twins import twin_facades
from spatial_retrieval.evaluate.bootstrap import bootstrap_interval, paired_bootstrap
from spatial_retrieval.evaluate.folder import folder_scores, split_folder
from spatial_retrieval.evaluate.twins import evaluate_twins


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--photographs", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--landmarks", type=int, default=120)
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--reference", default="lite0-gem")
    parser.add_argument("--own", action="store_true", help="without the plain part beside a model")
    args = parser.parse_args()

    twins = twin_facades("test", landmarks=args.landmarks, views=args.views)
    folders = dict(text.split("=", 1) for text in args.photographs)
    names = list(dict.fromkeys([args.reference, *args.models]))
    results = {name: measure(prepared(name, args.own), twins, folders) for name in names}
    reference = results[args.reference]

    print(f"\nTwin Façades test, {args.landmarks} landmarks × {args.views} views, %")
    print("| model | mAP | E | M | H | twin accuracy | Easy | mAP − reference | twin − reference |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, one in results.items():
        print(
            "| " + " | ".join([label(name), *twin_cells(one["twins"], reference["twins"])]) + " |"
        )

    print("\nReal photographs, leave-one-out macro mAP, %; time and size of the whole model")
    print("| model | " + " | ".join(f"{n} | Δ" for n in folders) + " | ms/image | parameters |")
    print("|---" * (2 * len(folders) + 3) + "|")
    for name, one in results.items():
        cells = [label(name)]
        for folder in folders:
            own, other = one[folder], reference[folder]
            cells += [f"{100 * own.macro_map:.1f}", str(difference(own, other))]
        print("| " + " | ".join([*cells, f"{one['ms']:.0f}", f"{one['size'] / 1e6:.2f} M"]) + " |")


def prepared(name: str, own: bool) -> RetrievalModel:
    """A model by name or folder, without its plain part if asked."""
    model = load_model(name, device="cpu")
    if own and model.plain is not None:
        model.plain, model.config = None, replace(model.config, beside=None)
    return model


def measure(model: RetrievalModel, twins, folders: dict[str, str]) -> dict:
    """Twin scores, folder scores by name, milliseconds, parameters outside the backbone."""
    found = {"twins": evaluate_twins(describe(model, list(twins.paths)), twins)}
    for name, folder in folders.items():
        files = list_images(folder)
        rows = describe(model, [Path(folder) / f for f in files])
        found[name] = folder_scores(rows, leave_one_out(files))
    found["ms"] = milliseconds(model)
    heads = (p for n, p in model.named_parameters() if not n.startswith("backbone."))
    found["size"] = sum(p.numel() for p in heads)
    return found


def leave_one_out(files: list[str]):
    """Every photograph asks all others, whatever it is called."""
    return split_folder([f.replace("query", "photo") for f in files])


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


def twin_cells(own, reference) -> list[str]:
    """One method's row."""
    pairs = own.data.labels // 2
    return [
        str(own.map()),
        *(f"{100 * own.map(level).value:.1f}" for level in "EMH"),
        str(own.accuracy()),
        f"{100 * own.accuracy(level='E').value:.1f}",
        str(paired_bootstrap(own.ap, reference.ap, pairs)),
        str(paired_bootstrap(own.correct, reference.correct, pairs[own.triplets[:, 0]])),
    ]


def difference(own, reference):
    """Macro mAP minus the reference's, resampled over labels."""
    gains = [
        np.nanmean(own.ap_per_query[own.query_labels == k])
        - np.nanmean(reference.ap_per_query[own.query_labels == k])
        for k in np.unique(own.query_labels)
    ]
    return bootstrap_interval(gains)


def label(name: str) -> str:
    return Path(name).parent.name if Path(name).name == "model" else name


if __name__ == "__main__":
    main()
