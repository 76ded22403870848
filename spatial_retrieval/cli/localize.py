"""``localize``: where in each photograph is what the query shows?"""

import argparse
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatial_retrieval.cli import CallError
from spatial_retrieval.cli.arguments import box, fraction, point, positive
from spatial_retrieval.cli.retrieval import DEFAULT_MODEL

if TYPE_CHECKING:
    from PIL import Image

    from spatial_retrieval.localize import Localization, Query
    from spatial_retrieval.models import RetrievalModel

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("localize", help="show where the query's object is in images")
    parser.add_argument("query", type=Path, metavar="QUERY")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    marks = "a point on the object, pixels of the query; may be given several times"
    parser.add_argument("--point", type=point, action="append", default=[], help=marks)
    parser.add_argument(
        "--not",
        type=point,
        action="append",
        default=[],
        dest="negatives",
        metavar="X,Y",
        help="a point that is not the object",
    )
    parser.add_argument("--box", type=box, metavar="X0,Y0,X1,Y1", help="around the object")
    parser.add_argument("--threshold", type=fraction, help="lowest score of a region (calibrated)")
    parser.add_argument("--limit", type=positive, default=3, help="regions per image (3)")
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="M")
    parser.add_argument("--layer", metavar="L", help="backbone layer, or model (a fine one)")
    parser.add_argument("--size", type=positive, default=480, help="longest side, pixels (480)")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="masks and overlays, PNG")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_localize)


def _localize(args: argparse.Namespace) -> None:
    from spatial_retrieval.images import load_image
    from spatial_retrieval.localize import THRESHOLD, find_in_photographs

    for path in (args.query, *args.images):
        if not path.is_file():
            raise CallError(f"{path}: no such photograph")
    model, layer = _model(args)
    query = _query(args, model, layer)
    threshold = THRESHOLD if args.threshold is None else args.threshold
    names = _file_names(args.images)
    hits = []
    for path, name in zip(args.images, names, strict=True):
        photograph = load_image(path)
        found = find_in_photographs(
            query,
            [_map(model, layer, photograph, args.size)],
            [photograph],
            threshold=threshold,
            limit=args.limit,
        )[0]
        mask = _write(found, photograph, args.output, name) if args.output else None
        hits.append(_hit(path, found, mask))
    if args.json:
        print(json.dumps(hits, indent=2, ensure_ascii=False))
        return
    for hit in hits:
        where = " ".join(str(tuple(region["box"])) for region in hit["regions"])
        print(f"{hit['score']:.3f}  {hit['image']}  {where or 'not found'}")


def _model(args: argparse.Namespace) -> tuple["RetrievalModel", str | None]:
    """The model and the layer whose map is used; None: the map that the model pools."""
    from spatial_retrieval.localize import fine_layer
    from spatial_retrieval.models import load_model

    try:
        model = load_model(args.model)
    except ValueError as error:
        raise CallError(f"--model: {error}") from error
    if args.layer is None:
        return model, fine_layer(model.backbone)
    if args.layer not in ("model", *model.backbone.layers):
        layers = ", ".join(model.backbone.layers)
        raise CallError(f"--layer: expected model or one of {layers}, got {args.layer!r}")
    return model, None if args.layer == "model" else args.layer


def _query(args: argparse.Namespace, model: "RetrievalModel", layer: str | None) -> "Query":
    from spatial_retrieval.images import load_image
    from spatial_retrieval.localize import prepare_photograph

    photograph = load_image(args.query)
    x = _map(model, layer, photograph, args.size)
    try:
        return prepare_photograph(
            x, photograph.size, points=args.point, negatives=args.negatives, box=args.box
        )
    except ValueError as error:
        raise CallError(f"{args.query}: {error}") from error


def _map(model: "RetrievalModel", layer: str | None, photograph: "Image.Image", size: int) -> Any:
    from spatial_retrieval.features.extraction import feature_maps

    return feature_maps(model, [photograph], size=size, layer=layer)[0]


def _hit(path: Path, found: "Localization", mask: Path | None) -> dict[str, Any]:
    regions = [{"box": list(region.box), "score": round(region.score, 4)} for region in found]
    return {
        "image": str(path),
        "score": round(found.score, 4),
        "box": regions[0]["box"] if regions else None,
        "regions": regions,
        "mask": str(mask) if mask else None,
    }


def _write(found: "Localization", photograph: "Image.Image", folder: Path, name: str) -> Path:
    """Write the mask and the overlay, each atomically; return the mask's path."""
    import numpy as np
    from PIL import Image

    from spatial_retrieval.plots.localization import overlay

    mask = Image.fromarray(np.where(found.mask.cpu().numpy(), 255, 0).astype(np.uint8))
    _save(mask, folder / f"{name}_mask.png")
    _save(overlay(photograph, found), folder / f"{name}_overlay.png")
    return folder / f"{name}_mask.png"


def _save(image: "Image.Image", path: Path) -> None:
    from spatial_retrieval.files import atomic_writer

    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    with atomic_writer(path) as file:
        file.write(buffer.getvalue())


def _file_names(paths: list[Path]) -> list[str]:
    """Stems, numbered where two photographs share one."""
    names: list[str] = []
    for path in paths:
        name, k = path.stem, 2
        while name in names:
            name, k = f"{path.stem}_{k}", k + 1
        names.append(name)
    return names
