"""Visitors' own photographs: shrunk, kept in a private folder for an hour, then deleted."""

import secrets
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from spatial_retrieval.demo import limits
from spatial_retrieval.demo.gallery import Example, Gallery, jpeg
from spatial_retrieval.demo.store import Store
from spatial_retrieval.images import ImageError, load_image, resize

__all__ = ["Sessions", "Upload", "decode"]


@dataclass(frozen=True, slots=True)
class Upload:
    """One uploaded file: the name it came with, and where it is or what it holds."""

    name: str
    source: Path | bytes


class Sessions:
    """Private galleries by a key that cannot be guessed.

    Args:
        capacity: galleries kept; the one unused longest is deleted first.
        seconds: a gallery is deleted this long after its last use.
    """

    def __init__(
        self,
        capacity: int = limits.MAX_SESSIONS,
        seconds: float = limits.SESSION_SECONDS,
    ) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="spatial-retrieval-"))
        weakref.finalize(self, shutil.rmtree, self._home, ignore_errors=True)
        self._galleries: Store[Gallery] = Store(
            capacity, seconds=seconds, dropped=lambda gallery: _delete(gallery.folder)
        )

    def __len__(self) -> int:
        return len(self._galleries)

    def create(self, uploads: Sequence[Upload]) -> tuple[Gallery, dict[str, str]]:
        """Take photographs in; bad files are set aside.

        Returns:
            The gallery, and name → reason for what is no readable photograph.

        Raises:
            ValueError: if there are none, too many, or none can be read.
        """
        if not 1 <= len(uploads) <= limits.MAX_PHOTOGRAPHS:
            raise ValueError(
                f"expected 1 to {limits.MAX_PHOTOGRAPHS} photographs, got {len(uploads)}"
            )
        folder = Path(tempfile.mkdtemp(dir=self._home))
        labels, failed = {}, {}
        for number, upload in enumerate(uploads):
            try:
                image = resize(decode(upload), limits.MAX_SIDE)
            except ImageError as error:
                failed[upload.name] = str(error)
                continue
            name = f"{number:03d}.jpg"
            (folder / name).write_bytes(jpeg(image, 90))
            labels[name] = upload.name
        if not labels:
            _delete(folder)
            raise ValueError(f"none of the files is a photograph; {next(iter(failed.values()))}")
        gallery = _gallery(folder, labels)
        self._galleries.put(gallery.key, gallery)
        return gallery, failed

    def get(self, key: str) -> Gallery | None:
        """The gallery, or None when it was deleted."""
        return self._galleries.get(key)

    def drop(self, key: str) -> None:
        """Delete a gallery and its files now."""
        self._galleries.drop(key)


def decode(upload: Upload) -> Image.Image:
    """Decode one upload to upright RGB, not much larger than ``limits.MAX_SIDE``.

    Raises:
        ImageError: naming the file as the visitor knows it.
    """
    source = upload.source
    try:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if size > limits.MAX_UPLOAD_BYTES:
            raise ImageError(
                f"{upload.name}: {size / 1e6:.0f} MB are more than the limit of "
                f"{limits.MAX_UPLOAD_BYTES / 1e6:.0f} MB"
            )
        data = source if isinstance(source, bytes) else source.read_bytes()
        return load_image(data, draft=limits.MAX_SIDE)
    except ImageError as error:
        raise ImageError(str(error).replace("image:", f"{upload.name}:", 1)) from error
    except OSError as error:
        raise ImageError(f"{upload.name}: cannot be read") from error


def _gallery(folder: Path, labels: dict[str, str]) -> Gallery:
    names = tuple(labels)
    return Gallery(
        key="own-" + secrets.token_urlsafe(12),
        title="Your photographs",
        folder=folder,
        names=names,
        labels=labels,
        examples=tuple(Example(folder / n, labels[n], n) for n in names[:8]),
        note=f"Your {len(names)} photographs, private to this visit.",
    )


def _delete(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
