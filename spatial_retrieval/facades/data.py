"""Twin Façades: a rendered benchmark that isolates spatial context.

Each landmark is a drawn house and has a twin: the same parts, materials and colours in another
arrangement. Whatever forgets where its local features stood cannot tell the two apart. Photographs
are drawn by code, so masks, homographies and as many landmarks as one likes come for free.

The cache is an ordinary folder of folders::

    <root>/twin-facades-test-…/images/00007/003_E.jpg    landmark 7, view 3, an easy one
                              /masks/00007/003_E.png     255 where its façade is visible
                              /manifest.json             what is known about all of them
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spatial_retrieval.files import atomic_writer, cache_dir, read_json
from spatial_retrieval.leftovers import remove_leftovers

__all__ = ["TwinFacades", "check_request", "twin_facades"]

_DAMAGED = (ValueError, KeyError, TypeError)
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True, eq=False)
class TwinFacades:
    """N photographs of L landmarks.

    Attributes:
        root: folder that holds `images`, `masks` and `manifest.json`.
        split: train, val or test.
        seed: of the landmarks.
        paths: N photographs, JPEG.
        labels: (N,) int64, landmark of each photograph.
        difficulty: (N,) "E", "M" or "H".
        twin_of: (L,) int64, the landmark's twin, -1 when it is not in the set.
        kind: (L,) how the pair was re-arranged: "shuffle", "rows" or "columns".
        homographies: (N, 3, 3) float64, pixels of the frontal canvas to pixels of the photograph
            (pixel centres at .5).
        canvas_sizes: (L, 2) int64, width and height of the frontal canvas.
    """

    root: Path
    split: str
    seed: int
    paths: tuple[Path, ...]
    labels: np.ndarray
    difficulty: np.ndarray
    twin_of: np.ndarray
    kind: np.ndarray
    homographies: np.ndarray
    canvas_sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def names(self) -> list[str]:
        """Paths relative to the folder of images, with "/"."""
        return [path.relative_to(self.images).as_posix() for path in self.paths]

    @property
    def images(self) -> Path:
        """The folder of landmark folders."""
        return self.root / "images"

    def image(self, i: int) -> Image.Image:
        """Photograph i, RGB."""
        with Image.open(self.paths[i]) as file:
            return file.convert("RGB")

    def mask(self, i: int) -> np.ndarray:
        """(h, w) bool, where the façade is visible in photograph i."""
        name = self.paths[i].relative_to(self.images)
        with Image.open(self.root / "masks" / name.with_suffix(".png")) as file:
            return np.asarray(file.convert("L")) > 127

    def frontal(self, landmark: int) -> np.ndarray:
        """(h, w, 4) uint8, the landmark's façade without perspective, light or street, RGBA."""
        from spatial_retrieval.facades.renderer.canvas import draw
        from spatial_retrieval.facades.renderer.render import landmark_design

        canvas = draw(landmark_design(self.split, self.seed, landmark))
        return np.dstack([canvas.rgb, canvas.alpha])


def twin_facades(
    split: str = "test",
    landmarks: int = 60,
    views: int | str = 10,
    seed: int = 0,
    *,
    size: int = 448,
    root: str | os.PathLike[str] | None = None,
) -> TwinFacades:
    """Render the benchmark, or as much of it as is not on disk yet, and open it.

    Every photograph depends on split, seed, size, difficulty, landmark and view alone: more
    landmarks or views add files and change none. One process a core renders.

    Args:
        split: "train", "val" or "test"; landmarks differ, and test has part styles of its own.
        landmarks: how many; 2k and 2k + 1 are twins.
        views: photographs of each, which take E, M and H in turn; or a letter for each.
        seed: another seed is another city.
        size: of the square photographs, pixels.
        root: folder for the cache, by default that of `spatial_retrieval.files.cache_dir`.

    Raises:
        ValueError: if an argument is out of range.
        OSError: if the folder cannot be written.

    Example:
        >>> data = twin_facades("test", landmarks=2, views=3, size=64)
        >>> len(data), "".join(data.difficulty), data.twin_of.tolist()
        (6, 'EMHEMH', [1, 0])
    """
    views, difficulty = (len(views), views) if isinstance(views, str) else (views, "EMH")
    check_request(split, landmarks, views, seed, size, difficulty)
    from spatial_retrieval.facades.renderer.render import VERSION, Job

    name = f"twin-facades-v{VERSION}-{split}-seed{seed}-{size}px-{views}x{difficulty}"
    folder = Path(root if root is not None else cache_dir() / "twins").absolute() / name
    job = Job(str(folder), split, seed, size, views, difficulty)
    remove_leftovers(folder, recursive=True)
    records = _read_manifest(folder)
    if len(records) < landmarks or not _all_there(folder, records[:landmarks]):
        _render(job, landmarks)
        records = [_read_record(folder, k) for k in range(max(landmarks, len(records)))]
        _write_manifest(job, records)
    return _open(job, records[:landmarks])


def check_request(
    split: str, landmarks: int, views: int, seed: int, size: int, difficulty: str
) -> None:
    """Raise the ValueError that `twin_facades` would, without rendering."""
    if split not in _SPLITS:
        raise ValueError(f"expected a split in {_SPLITS}, got {split!r}")
    for name, value, least in (
        ("landmarks", landmarks, 1),
        ("views", views, 1),
        ("seed", seed, 0),
        ("size", size, 64),
    ):
        if value < least:
            raise ValueError(f"expected {name} >= {least}, got {value}")
    if not difficulty or set(difficulty) - set("EMH"):
        raise ValueError(f"expected difficulty made of the letters E, M, H, got {difficulty!r}")


def _render(job: Any, landmarks: int) -> None:
    from tqdm.auto import tqdm

    from spatial_retrieval.facades.renderer.render import render_landmark
    from spatial_retrieval.facades.renderer.worker import render_in_processes

    folder = Path(job.folder)
    missing = [k for k in range(landmarks) if not _complete(folder, k)]
    workers = max(1, min(_cores(), len(missing)))
    with tqdm(total=len(missing), desc=f"twin façades, {job.split}", unit="landmark") as bar:
        if workers == 1 or len(missing) * job.views < 8:  # starting processes would take longer
            for landmark in missing:
                render_landmark(job, landmark)
                bar.update()
        else:
            render_in_processes(job, missing, workers, bar.update)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _complete(folder: Path, landmark: int) -> bool:
    try:
        return _all_there(folder, [_read_record(folder, landmark)])
    except (OSError, *_DAMAGED):
        return False


def _all_there(folder: Path, records: Sequence[dict[str, Any]]) -> bool:
    stems = [view["file"] for record in records for view in record["views"]]
    return all(
        _ends_with(folder / "images" / f"{stem}.jpg", b"\xff\xd9")
        and _ends_with(folder / "masks" / f"{stem}.png", b"IEND\xaeB`\x82")
        for stem in stems
    )


def _ends_with(path: Path, mark: bytes) -> bool:
    """Whether a file is there with its end, which a crash or a full disk may have cost it."""
    try:
        with path.open("rb") as file:
            file.seek(-len(mark), os.SEEK_END)
            return file.read() == mark
    except OSError:
        return False


def _record_path(folder: Path, landmark: int) -> Path:
    return folder / "landmarks" / f"{landmark:05d}.json"


def _read_record(folder: Path, landmark: int) -> dict[str, Any]:
    return read_json(_record_path(folder, landmark))


def _read_manifest(folder: Path) -> list[dict[str, Any]]:
    try:
        records = read_json(folder / "manifest.json")["landmarks"]
        _all_there(folder, records)
        return records
    except (OSError, *_DAMAGED):
        return []


def _write_manifest(job: Any, records: list[dict[str, Any]]) -> None:
    about = {key: value for key, value in asdict(job).items() if key != "folder"}
    with atomic_writer(Path(job.folder) / "manifest.json") as file:
        file.write(json.dumps(about | {"landmarks": records}).encode())


def _open(job: Any, records: list[dict[str, Any]]) -> TwinFacades:
    folder = Path(job.folder)
    views = [(record["landmark"], view) for record in records for view in record["views"]]
    twins = np.arange(len(records)) ^ 1
    return TwinFacades(
        root=folder,
        split=job.split,
        seed=job.seed,
        paths=tuple(folder / "images" / f"{view['file']}.jpg" for _, view in views),
        labels=np.array([landmark for landmark, _ in views], dtype=np.int64),
        difficulty=np.array([view["difficulty"] for _, view in views]),
        twin_of=np.where(twins < len(records), twins, -1).astype(np.int64),
        kind=np.array([record["kind"] for record in records]),
        homographies=np.array([view["homography"] for _, view in views], dtype=np.float64),
        canvas_sizes=np.array([record["canvas"] for record in records], dtype=np.int64),
    )
