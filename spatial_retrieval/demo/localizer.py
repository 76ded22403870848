"""Localization in hits: feature maps kept, marks carried over from the query."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from spatial_retrieval.demo import limits
from spatial_retrieval.demo.gallery import Gallery, tile
from spatial_retrieval.demo.line import Line
from spatial_retrieval.demo.models import Shelf
from spatial_retrieval.demo.queries import KeptQuery
from spatial_retrieval.demo.results import Hit, Results
from spatial_retrieval.demo.store import Store
from spatial_retrieval.features.extraction import DEFAULT_SIZE, feature_maps
from spatial_retrieval.images import Box
from spatial_retrieval.localize import (
    THRESHOLD,
    Localization,
    find_in_photographs,
    fine_layer,
    prepare_photograph,
)
from spatial_retrieval.localize import Query as Prepared

__all__ = ["LAYERS", "LocalizedHit", "Localizer", "LocalizedHits", "strongest"]

LAYERS = ("fine", "pooled")  # a fine layer of the backbone; the map that the descriptor pools
_MAPS = 260  # kept at once, half a megabyte each
_AHEAD = 2  # photographs between two looks at whether somebody waits


@dataclass(frozen=True, slots=True, eq=False)
class LocalizedHit:
    """The regions found in one hit.

    Attributes:
        rank, name, label: of the hit.
        size: width and height that boxes, outlines and masks are measured in.
        result: regions with masks and boxes in these pixels, and the heat map.
        outlines: per region its outlines, each (n, 2) points x, y.
    """

    rank: int
    name: str
    label: str
    size: tuple[int, int]
    result: Localization
    outlines: tuple[tuple[np.ndarray, ...], ...]

    def heat_png(self, cells: int = 48) -> bytes:
        """The heat map in warm colours, clear where it is not above 0; at most ``cells`` wide."""
        heat = self.result.heat.clamp(min=0)
        strength = (heat / heat.max().clamp(min=1e-6)).cpu().numpy()
        colours = np.empty((*strength.shape, 4), np.uint8)
        colours[..., 0] = 255
        colours[..., 1] = 220 * (1 - strength)
        colours[..., 2] = 0
        colours[..., 3] = 255 * strength.clip(0, 1) ** 0.7
        buffer = BytesIO()
        picture = Image.fromarray(colours, "RGBA")
        picture.thumbnail((cells, cells), Image.Resampling.BILINEAR)
        picture.save(buffer, "PNG")
        return buffer.getvalue()

    def to_json(self) -> dict[str, Any]:
        """Boxes, outlines and scores, as shares of width and height from 0 to 1."""
        size = np.array([*self.size, *self.size], dtype=float)
        regions = [
            {
                "score": round(region.score, 3),
                "box": (np.array(region.box) / size).round(4).tolist(),
                "outlines": [(line / size[:2]).round(4).tolist() for line in outlines],
            }
            for region, outlines in zip(self.result.regions, self.outlines, strict=True)
        ]
        return {"rank": self.rank, "name": self.name, "label": self.label, "regions": regions}


@dataclass(frozen=True, slots=True, eq=False)
class LocalizedHits:
    """What was found in all hits, and the time of each stage in milliseconds."""

    found: tuple[LocalizedHit, ...]
    milliseconds: dict[str, float]


class Localizer:
    """Finds the marked part of a query in hits.

    Args:
        shelf: the models.
        line: what is made ahead waits until nobody stands there.
    """

    def __init__(self, shelf: Shelf, line: Line) -> None:
        self._shelf = shelf
        self._line = line
        self._maps: Store[Tensor] = Store(_MAPS)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="maps")
        self._asked = 0  # rises with each request; what is made ahead for an older one stops

    def prefetch(self, results: Results, gallery: Gallery, layer: str = "fine") -> Future:
        """Make the hits' maps in the background, until somebody asks for something else."""
        self._asked += 1
        return self._worker.submit(self._make_ahead, self._asked, results, gallery, layer)

    def prepare(self, query: KeptQuery, model: str, layer: Any, points: Any, box: Any) -> Prepared:
        """The object's cells of a query, from marks in its pixels, or chosen without any."""
        layer = limits.choice(layer, "the layer", LAYERS)
        size = query.image.size
        marks = limits.marked_points(points, size)
        cut: Box | None = limits.marked_box(box, size)
        query_map = self._maps.get_or(
            f"query/{query.gallery}/{query.key}/{model}/{layer}",
            lambda: self._describe(model, layer, [query.image])[0],
        )
        return prepare_photograph(
            query_map,
            size,
            points=[(x, y) for x, y, wanted in marks if wanted],
            negatives=[(x, y) for x, y, wanted in marks if not wanted],
            box=cut,
        )

    def localize(
        self,
        prepared: Prepared,
        results: Results,
        gallery: Gallery,
        pictures: Sequence[bytes],
        *,
        layer: str,
        threshold: Any = THRESHOLD,
    ) -> LocalizedHits:
        """Find a prepared query in the hits, whose pictures give the size of the masks."""
        lowest = limits.number(threshold, "the threshold", 0, 1)
        start = perf_counter()
        maps = self._maps_of(results, results.hits, gallery, layer)
        described = perf_counter()
        photographs = [Image.open(BytesIO(picture)).convert("RGB") for picture in pictures]
        found = find_in_photographs(prepared, maps, photographs, threshold=lowest)
        done = tuple(
            LocalizedHit(
                hit.rank,
                hit.name,
                hit.label,
                photograph.size,
                result,
                tuple(tuple(region.polygons()) for region in result.regions),
            )
            for hit, photograph, result in zip(results.hits, photographs, found, strict=True)
        )
        end = perf_counter()
        return LocalizedHits(
            done, {"maps": 1000 * (described - start), "localize": 1000 * (end - described)}
        )

    def forget(self, gallery: str) -> None:
        """Forget the maps of a gallery's photographs and of queries that are among them."""
        starts = f"hit/{gallery}/", f"query/{gallery}/"
        self._maps.drop_where(lambda key, value: key.startswith(starts))

    def _make_ahead(self, asked: int, results: Results, gallery: Gallery, layer: str) -> None:
        for start in range(0, len(results.hits), _AHEAD):
            with self._line.spare() as free:
                if not free or asked != self._asked or not gallery.folder.is_dir():
                    return
                few = results.hits[start : start + _AHEAD]
                self._maps_of(results, few, gallery, layer)

    def _maps_of(
        self, results: Results, hits: Sequence[Hit], gallery: Gallery, layer: str
    ) -> list[Tensor]:
        """Hits' feature maps; those not kept any more are made again."""
        model = results.model
        keys = [f"hit/{gallery.key}/{hit.name}/{model}/{layer}" for hit in hits]
        known = {key: self._maps.get(key) for key in keys}
        missing = [i for i, key in enumerate(keys) if known[key] is None]
        if missing:
            images = [tile(gallery.folder / hits[i].name, DEFAULT_SIZE) for i in missing]
            made = self._describe(model, layer, images)
            for i, values in zip(missing, made, strict=True):
                known[keys[i]] = values
                self._maps.put(keys[i], values)
        return [known[key] for key in keys]

    def _describe(self, model: str, layer: str, images: Sequence[Image.Image]) -> list[Tensor]:
        loaded = self._shelf.model(model)
        name = fine_layer(loaded.backbone) if layer == "fine" else None
        return feature_maps(loaded, images, layer=name)


def strongest(prepared: Prepared, size: tuple[int, int]) -> tuple[float, float]:
    """The pixel of the cell that the choice without marks trusts most."""
    height, width = prepared.grid
    seed = prepared.seed.masked_fill(~prepared.positive, float("-inf"))
    row, column = divmod(int(seed.argmax()), width)
    return (column + 0.5) * size[0] / width, (row + 0.5) * size[1] / height
