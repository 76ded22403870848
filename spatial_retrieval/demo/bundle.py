"""Everything about one question in one file: hits as JSON and CSV, regions, overlays."""

import io
import json
import zipfile
from collections.abc import Sequence

from PIL import Image

from spatial_retrieval.demo.gallery import jpeg
from spatial_retrieval.demo.localizer import LocalizedHits
from spatial_retrieval.demo.results import Results

__all__ = ["bundle"]


def bundle(results: Results, localized: LocalizedHits, pictures: Sequence[bytes]) -> bytes:
    """A zip archive of hits.json, hits.csv, regions.json and one overlay for each hit.

    Args:
        results: the hits.
        localized: the regions found in them.
        pictures: JPEG of each hit, of the size that ``localized`` is measured in.
    """
    from spatial_retrieval.plots.localization import overlay

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("hits.json", _text(results.to_json()))
        archive.writestr("hits.csv", results.to_csv())
        archive.writestr("regions.json", _text([found.to_json() for found in localized.found]))
        for found, picture in zip(localized.found, pictures, strict=True):
            drawn = overlay(Image.open(io.BytesIO(picture)), found.result)
            archive.writestr(f"overlays/{found.rank:02d}.jpg", jpeg(drawn, 90))
    return buffer.getvalue()


def _text(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
