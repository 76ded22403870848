"""Galleries: the photographs that a query is asked against, and where they came from."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageOps

from spatial_retrieval.datasets.folders import list_images
from spatial_retrieval.images import ImageError, load_image, resize
from spatial_retrieval.index import DescriptorIndex

__all__ = [
    "ExampleQuery",
    "Gallery",
    "embedded",
    "frame",
    "from_folder",
    "from_index",
    "jpeg",
    "tile",
]

_EXAMPLES = 8


@dataclass(frozen=True, slots=True)
class ExampleQuery:
    """A photograph offered as a query.

    Attributes:
        path: the file.
        label: what is said about it.
        name: its name when it is itself in the gallery; it is left out of its own hits.
        same, twins: where that is known, names of photographs of the same thing, and of its twin.
    """

    path: Path
    label: str
    name: str | None = None
    same: frozenset[str] = frozenset()
    twins: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """Photographs below one folder.

    Attributes:
        key: names the gallery, also among cached indices.
        title: for people.
        folder: where the photographs are.
        names: relative paths, the order of the index.
        labels: name → what is said about it.
        examples: queries to begin with.
        note: one sentence on what these photographs are.
        index: an index made beforehand, or None.
    """

    key: str
    title: str
    folder: Path
    names: tuple[str, ...]
    labels: dict[str, str] = field(default_factory=dict)
    examples: tuple[ExampleQuery, ...] = ()
    note: str = ""
    index: Path | None = None

    def label(self, name: str) -> str:
        """What is said about a photograph: its label, or its name without the suffix."""
        return self.labels.get(name) or str(Path(name).with_suffix(""))


def embedded() -> Gallery:
    """The gallery that comes with the package: Twin Façades, drawn at the first start."""
    from spatial_retrieval.facades.showcase import embedded_gallery

    made = embedded_gallery()
    names = tuple(list_images(made.folder))
    examples = [
        ExampleQuery(e.query, _house(e.query), same=frozenset(e.hits), twins=frozenset(e.twins))
        for e in made.examples
    ]
    return Gallery(
        key=_key(made.folder),
        title="Twin Façades",
        folder=made.folder,
        names=names,
        labels={name: _house(made.folder / name) for name in names},
        examples=tuple(examples),
        note=f"Twin Façades, {len(names)} images of drawn houses. Each house has a twin: the same "
        "parts in another arrangement. Marked are hits that show the ✓ same house and its "
        "≠ twin; no ranking sees these labels.",
    )


def from_folder(folder: str | Path) -> Gallery:
    """A gallery of all photographs below a folder; evenly spaced ones serve as examples.

    Raises:
        ValueError: if the folder isn't there or holds no photograph.
    """
    folder = Path(folder).resolve()
    names = tuple(list_images(folder))
    return Gallery(
        key=_key(folder),
        title=folder.name,
        folder=folder,
        names=names,
        examples=_spaced(folder, names),
        note=f"{len(names)} photographs of the folder {folder.name}.",
    )


def from_index(index: str | Path) -> Gallery:
    """The gallery of an index that ``spatial-retrieval index`` made.

    Raises:
        ValueError: if the index is damaged, or its folder of photographs is gone.
    """
    index = Path(index).resolve()
    if not index.is_dir():
        raise ValueError(f"{index}: no such index; make one with: spatial-retrieval index")
    loaded = DescriptorIndex.load(index)
    folder = Path(loaded.info.get("folder", ""))
    if not loaded.info.get("folder") or not folder.is_dir():
        raise ValueError(f"{index}: the folder of its photographs is gone ({folder})")
    return Gallery(
        key=_key(index),
        title=folder.name,
        folder=folder,
        names=loaded.names,
        examples=_spaced(folder, loaded.names),
        note=f"{len(loaded)} photographs of the folder {folder.name}.",
        index=index,
    )


def tile(path: Path, side: int) -> Image.Image:
    """A photograph of at most ``side`` pixels; an empty tile where it cannot be read any more."""
    try:
        return resize(load_image(path, draft=side), side)
    except ImageError:
        return Image.new("RGB", (side, side * 3 // 4), "#d4d4d8")


def jpeg(image: Image.Image, quality: int = 82) -> bytes:
    """A PIL image as JPEG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def frame(a: Image.Image, b: Image.Image, side: int) -> tuple[Image.Image, Image.Image]:
    """Both images centred on grey canvases of one size, neither side above ``side``."""
    a, b = (ImageOps.contain(image, (side, side)) for image in (a, b))
    size = max(a.width, b.width), max(a.height, b.height)
    return tuple(ImageOps.pad(image, size, color="#808080") for image in (a, b))


def _spaced(folder: Path, names: Sequence[str]) -> tuple[ExampleQuery, ...]:
    step = max(1, len(names) // _EXAMPLES)
    chosen = names[::step][:_EXAMPLES]
    return tuple(ExampleQuery(folder / n, str(Path(n).with_suffix("")), n) for n in chosen)


def _house(path: Path) -> str:
    return f"{path.parent.name} · {path.stem}".replace("-", " ")


def _key(path: Path) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()[:12]
