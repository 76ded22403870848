"""Draw ``images/NAME.jpg`` for the map of the course, from a picture each notebook has kept.

``python notebooks/thumbnails.py``, after the notebooks were executed.
"""

import base64
import io
from pathlib import Path

import nbformat
from PIL import Image, ImageOps

HERE = Path(__file__).parent
SIZE = (320, 180)
# which of a notebook's kept pictures is its face, counted from 0
FACES = {"01": 1, "02": 1, "03": 5, "04": 4, "05": 2, "06": 6, "07": 1, "08": 2, "09": 0, "10": 0}


def main() -> None:
    """Write one thumbnail for each notebook."""
    (HERE / "images").mkdir(exist_ok=True)
    for path in sorted(HERE.glob("*.ipynb")):
        face = Image.open(io.BytesIO(pictures(path)[FACES[path.stem[:2]]])).convert("RGB")
        small = ImageOps.contain(face, SIZE, Image.Resampling.LANCZOS)
        shown = ImageOps.pad(small, SIZE, color="white")
        shown.save(HERE / "images" / f"{path.stem}.jpg", quality=85, optimize=True)


def pictures(path: Path) -> list[bytes]:
    """All stills and photographs in a notebook's outputs, in order."""
    found = []
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = data.get("image/png") or data.get("image/jpeg")
            found += [base64.b64decode(text)] if text else []
    return found


if __name__ == "__main__":
    main()
