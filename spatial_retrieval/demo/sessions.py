"""Visitors' own photographs: shrunk, kept in a private folder for an hour, then deleted."""

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from spatial_retrieval.demo import limits
from spatial_retrieval.demo.gallery import ExampleQuery, Gallery, jpeg
from spatial_retrieval.demo.line import Line, TurnError
from spatial_retrieval.demo.store import Store
from spatial_retrieval.demo.uploads import Upload
from spatial_retrieval.images import ImageError, load_image, resize

__all__ = ["Sessions", "decode_upload"]

_WHY = {
    "time": "these photographs were deleted an hour after their last use; add them again",
    "room": "these photographs were deleted to make room for others; add them again",
    "deleted": "these photographs are deleted, as you asked; add others",
}


class Sessions:
    """Private galleries by a key that cannot be guessed.

    When there are too many, the visitor who has the most loses the one unused longest.

    Args:
        home: folder for the photographs.
        line: decoding waits its turn here.
        capacity: galleries kept.
        seconds: a gallery is deleted this long after its last use.
        dropped: called with each gallery that is deleted.
    """

    def __init__(
        self,
        home: Path,
        line: Line,
        *,
        capacity: int = limits.MAX_SESSIONS,
        seconds: float = limits.SESSION_SECONDS,
        dropped: Callable[[Gallery], None] = lambda gallery: None,
    ) -> None:
        self._home = home
        self._line = line
        self._dropped = dropped
        self._galleries: Store[Gallery] = Store(
            capacity, each=limits.SESSIONS_EACH, seconds=seconds, dropped=self._delete
        )

    def __len__(self) -> int:
        return len(self._galleries)

    @contextmanager
    def taking(self, uploads: Sequence[Upload]) -> Iterator[tuple[Gallery, dict[str, str]]]:
        """Take photographs in; bad files are set aside.

        The gallery is kept when the block ends well, and deleted when it does not.

        Yields:
            The gallery, and name → reason for what is no readable photograph.

        Raises:
            ValueError: if there are none, too many, or none can be read.
        """
        if not 1 <= len(uploads) <= limits.MAX_PHOTOGRAPHS:
            raise ValueError(
                f"expected 1 to {limits.MAX_PHOTOGRAPHS} photographs, got {len(uploads)}"
            )
        folder = Path(tempfile.mkdtemp(dir=self._home))
        try:
            labels, failed = self._write(uploads, folder)
            if not labels:
                reason = next(iter(failed.values()))
                raise ValueError(f"none of the files is a photograph; {reason}")
            gallery = _gallery(folder, labels)
            yield gallery, failed
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._galleries.put(gallery.key, gallery)

    def __getitem__(self, key: str) -> Gallery:
        """A gallery.

        Raises:
            ValueError: if it was deleted; the message says why.
        """
        found = self._galleries.get(key)
        if found is None:
            raise ValueError(
                _WHY.get(self._galleries.why(key) or "", "there are no such photographs; add some")
            )
        return found

    def drop(self, key: str) -> None:
        """Delete a gallery and its files now."""
        self._galleries.drop(key)

    def sweep(self) -> None:
        """Delete what was not used for too long."""
        self._galleries.sweep()

    def _write(
        self, uploads: Sequence[Upload], folder: Path
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Labels by name of what was written to the folder, and reasons by label of the rest."""
        labels, failed = {}, {}
        for number, upload in enumerate(uploads):
            name = f"{number:03d}.jpg"
            try:
                with self._line.turn():
                    image = resize(decode_upload(upload), limits.LONGEST_SIDE)
                    (folder / name).write_bytes(jpeg(image, 90))
            except TurnError:
                raise
            except ValueError as error:
                failed[upload.name] = str(error)
            else:
                labels[name] = upload.name
        return labels, failed

    def _delete(self, gallery: Gallery) -> None:
        shutil.rmtree(gallery.folder, ignore_errors=True)
        self._dropped(gallery)


def decode_upload(upload: Upload) -> Image.Image:
    """Decode one upload to upright RGB, not much larger than ``limits.LONGEST_SIDE``.

    Raises:
        ImageError: naming the file as the visitor knows it.
    """
    data = upload.read()
    if len(data) > limits.MAX_UPLOAD_BYTES:
        raise ImageError(
            f"{upload.name}: more than the limit of {limits.MAX_UPLOAD_BYTES / 1e6:.0f} MB"
        )
    is_jpeg = data[:3] == b"\xff\xd8\xff"
    if not is_jpeg and data[:8] != b"\x89PNG\r\n\x1a\n" and data[8:12] != b"WEBP":
        raise ImageError(f"{upload.name}: expected a JPEG, PNG or WebP image")  # fewest decoders
    most = limits.MAX_JPEG_PIXELS if is_jpeg else limits.MAX_WHOLE_PIXELS
    try:
        return load_image(data, draft=limits.LONGEST_SIDE, max_pixels=most)
    except ImageError as error:
        raise ImageError(str(error).replace("image:", f"{upload.name}:", 1)) from error


def _gallery(folder: Path, labels: dict[str, str]) -> Gallery:
    names = tuple(labels)
    return Gallery(
        key="own-" + secrets.token_urlsafe(12),
        title="Your photographs",
        folder=folder,
        names=names,
        labels=labels,
        examples=tuple(ExampleQuery(folder / n, labels[n], n) for n in names[:8]),
        note=f"Your {len(names)} photographs, private to this visit.",
    )
