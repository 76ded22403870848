"""Seeded mutations of sound files, and what reads each kind (also benchmarks/hostile.py)."""

import gzip
import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

_INTERESTING = (b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\1\0\0", b"NaN ")
_WORDS = (
    b"null",
    b"-1",
    b"1e999",
    b"[]",
    b"{}",
    b'"x"',
    b"NaN",
    b"true",
    b"9" * 40,
    b"[[[[",
    b"../",
)


@dataclass(frozen=True)
class Kind:
    """A kind of input: sound examples, what reads one from a folder, what that may raise."""

    seeds: Callable[[str], list[bytes]]
    read: Callable[[Path], object]
    name: str
    refuses: tuple[type[Exception], ...] = (ValueError,)
    text: bool = False


class _Calls:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def input_of(kind: str, seed: int, number: int, mark: Path) -> bytes:
    """Input ``number`` of a kind: a sound example, mutated."""
    about = KINDS[kind]
    rng = np.random.default_rng([seed, number, zlib.crc32(kind.encode())])
    seeds = about.seeds(str(mark))
    data = bytearray(seeds[rng.integers(len(seeds))])
    for _ in range(rng.integers(1, 9)):
        _mutate(data, rng, about.text)
    return bytes(data)


def read_input(kind: str, data: bytes, folder: Path) -> tuple[str, bool]:
    """(what it wrongly raised, whether it was refused) when the data are read as a file."""
    about = KINDS[kind]
    path = folder / about.name
    path.write_bytes(data)
    try:
        about.read(path)
    except about.refuses:
        return "", True
    except MemoryError:
        return "MemoryError", False
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200], False
    return "", False


def _mutate(data: bytearray, rng: np.random.Generator, text: bool) -> None:
    at = (
        int(rng.integers(len(data) + 1))
        if rng.random() < 0.6
        else int(rng.integers(65)) % (len(data) + 1)
    )
    length = int(2 ** rng.uniform(0, 7))
    choice = rng.integers(8)
    if choice == 0:
        data[at : at + 1] = bytes([rng.integers(256)])
    elif choice == 1 and at < len(data):
        data[at] ^= 1 << int(rng.integers(8))
    elif choice == 2:
        data[at : at + 4] = _INTERESTING[rng.integers(len(_INTERESTING))]
    elif choice == 3:
        del data[at : at + length]
    elif choice == 4:
        data[at:at] = data[at : at + length] * int(rng.integers(1, 5))
    elif choice == 5 and rng.random() < 0.3:
        del data[at:]
    elif choice == 6 or text:
        word = _WORDS[rng.integers(len(_WORDS))] if text else rng.bytes(length)
        data[at : at + (length if text else 0)] = word
    else:
        start = int(rng.integers(len(data) + 1))
        data[at : at + length] = data[start : start + length]


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 72.0
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    return exif.tobytes()


@cache
def _images(_: str) -> list[bytes]:
    x, y = np.meshgrid(np.linspace(0, 255, 41), np.linspace(0, 255, 29))
    picture = Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    extras = {"exif": _exif(), "icc_profile": profile.replace(b"rXYZ", b"gXYZ", 1)}
    wanted = [
        ("JPEG", picture, {}),
        ("JPEG", picture, {"progressive": True, **extras}),
        ("JPEG", picture.convert("CMYK"), {}),
        ("JPEG", picture.convert("L"), {"exif": _exif()}),
        ("PNG", picture, extras),
        ("PNG", picture.convert("P"), {"transparency": 3}),
        ("PNG", picture.convert("I;16"), {}),
        ("PNG", picture.convert("RGBA"), {}),
        ("WEBP", picture, extras),
        ("WEBP", picture.convert("RGBA"), {"lossless": True}),
        ("GIF", picture, {"save_all": True, "append_images": [picture.rotate(9)]}),
        ("BMP", picture, {}),
        ("TIFF", picture, extras),
        ("AVIF", picture, {"exif": _exif()}),
        ("TIFF", picture, {"compression": "tiff_lzw"}),
        ("TIFF", picture, {"compression": "jpeg"}),
        ("HEIF", picture, {"exif": _exif()}),
    ]
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
    except ImportError:
        wanted.pop()
    return [data for kind, image, options in wanted if (data := _encoded(image, kind, options))]


def _encoded(image: Image.Image, kind: str, options: dict) -> bytes:
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind, **options)
    except (OSError, KeyError):  # a codec that this Pillow lacks
        return b""
    return buffer.getvalue()


def _read_image(path: Path) -> None:
    from spatial_retrieval.images import load_image

    assert load_image(path, draft=64).mode == "RGB"


def _read_exif(path: Path) -> None:
    from spatial_retrieval.images import load_image

    block = path.read_bytes()[:65_000]
    jpeg = _images("")[0]
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    assert sorted(load_image(jpeg[:2] + segment + jpeg[2:]).size) == [29, 41]


_TRUTH = {
    "imlist": ["a", "b", "c"],
    "qimlist": ["q", "r"],
    "gnd": [{"bbx": [0.0, 1.0, 9.5, 9.0], "easy": [0], "hard": [1], "junk": [2]}] * 2,
}


@cache
def _pickles(mark: str) -> list[bytes]:
    evil = [{**_TRUTH, "gnd": _Calls(mark)}, _Calls(mark), [_TRUTH, (1, (2, _Calls(mark)))]]
    values = [_TRUTH, {"k": [(1, 2.5, None, True, b"x", 2**80)]}, *evil]
    known = [pickle.dumps(value, protocol) for value in values for protocol in (0, 2, 4, 5)]
    return [*known, b"\x80\x04}N" + b"\x85" * 3000 + b"Ns.", b"]\x94h\0h\0e."]


def _read_pickle(path: Path) -> None:
    from spatial_retrieval.datasets.safe_pickle import load_plain_pickle

    load_plain_pickle(path)


@cache
def _npys(mark: str) -> list[bytes]:
    value = {"a": np.array([[1, 2], [3, 4]]), "b": [], "c": np.float32(2), "d": "text"}
    found = []
    for item in (value, {**value, "e": _Calls(mark)}):
        buffer = io.BytesIO()
        np.save(buffer, np.array(item, dtype=object), allow_pickle=True)
        found.append(buffer.getvalue())
    return found


def _read_npy(path: Path) -> None:
    from spatial_retrieval.datasets.pickled_npy import load_pickled_npy

    load_pickled_npy(path)


def _read_truth(path: Path) -> None:
    from spatial_retrieval.datasets.revisited import load_ground_truth

    load_ground_truth(path)


@cache
def _models(mark: str) -> list[tuple[bytes, bytes]]:
    from spatial_retrieval.models.load import _WEIGHTS

    return [
        ((p.parent / "config.json").read_bytes(), (p.parent / "model.safetensors").read_bytes())
        for p in sorted(_WEIGHTS.glob("*/config.json"))
    ][:2]


def _configs(mark: str) -> list[bytes]:
    classes = b"os.system", b"posix.system", b"torch.load", b"builtins.exec", b"subprocess.run"
    evil = b'{"format": 2, "class": "%s", "args": ["touch ' + os.fsencode(mark) + b'"]}'
    return [config for config, _ in _models(mark)] + [evil % name for name in classes]


def _read_config(path: Path) -> None:
    from spatial_retrieval.models.load import read_model

    weights = path.with_name("model.safetensors")
    if not weights.exists():
        weights.write_bytes(_models("")[0][1])
    read_model(path.parent)


def _checkpoints(mark: str) -> list[bytes]:
    return [_models(mark)[0][1]]


def _read_checkpoint(path: Path) -> None:
    from spatial_retrieval.models.load import read_model

    config = path.with_name("config.json")
    if not config.exists():
        config.write_bytes(_models("")[0][0])
    read_model(path.parent)


@cache
def _archives(mark: str) -> list[bytes]:
    found = []
    for names in (("a.jpg", "b/c.jpg"), ("a.jpg", "../../up.jpg")):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = 600
                tar.addfile(member, io.BytesIO(bytes(600)))
        found += [buffer.getvalue(), gzip.compress(buffer.getvalue(), mtime=0)]
    return found


def _read_archive(path: Path) -> None:
    from spatial_retrieval.datasets.download import _check_whole, _unpack

    try:
        _check_whole(path)
    finally:
        if path.exists():
            _unpack(path, path.parent / "unpacked", flat=False)


@cache
def _index_files(_: str) -> dict[str, bytes]:
    import tempfile

    from spatial_retrieval.index import DescriptorIndex

    rows = np.eye(5, dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        DescriptorIndex.build(rows, list("abcde"), {"model": "lite0-gem"}).save(folder)
        files = [p for p in Path(folder).rglob("*") if p.is_file()]
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def _index_seeds(mark: str) -> list[bytes]:
    return list(_index_files("").values())


def _read_index(path: Path) -> None:
    """Put the mutated file in the place of the one it resembles most, with its right checksum."""
    import shutil

    from spatial_retrieval.index import DescriptorIndex

    data, files = path.read_bytes(), dict(_index_files(""))
    name = min(files, key=lambda n: (files[n][:4] != data[:4], abs(len(files[n]) - len(data))))
    old, new = (hashlib.sha256(x).hexdigest() for x in (files.pop(name), data))
    target = path.parent / "index"
    shutil.rmtree(target, ignore_errors=True)
    for other, content in {**files, name: data}.items():
        place, known = target / other, content
        if other != name:
            for n in (64, 32, 24, 20, 16, 12):
                known = known.replace(old[:n].encode(), new[:n].encode())
        for n in (64, 32, 24, 20, 16, 12):
            place = target / str(place.relative_to(target)).replace(old[:n], new[:n])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(known)
    index = DescriptorIndex.load(target, verify=True)
    index.search(np.eye(5, dtype=np.float32)[:1], 2)


@cache
def _shards(_: str) -> list[bytes]:
    import tempfile

    from spatial_retrieval.features.store import write_shard

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shard")
        write_shard(path, {"rows": np.eye(4, dtype=np.float32), "ids": np.arange(4)}, {"a": 1})
        return [path.read_bytes()]


def _read_shard(path: Path) -> None:
    from spatial_retrieval.features.store import open_shard

    open_shard(path).verify()


def _truth_json(mark: str) -> list[bytes]:
    return [json.dumps(_TRUTH).encode()]


def _labels(mark: str) -> list[bytes]:
    shapes = [
        {"points": [[0, 0], [5, 0], [5, 5]]},
        {"points": [[0, 0], [5, 5]], "shape_type": "rectangle"},
    ]
    return [json.dumps({"shapes": shapes}).encode()]


def _read_labels(path: Path) -> None:
    from spatial_retrieval.datasets.pixel import load_labelme, polygon_mask

    polygon_mask(load_labelme(path), (9, 9))


KINDS = {
    "image": Kind(_images, _read_image, "photograph.jpg"),
    "exif": Kind(lambda mark: [_exif()], _read_exif, "exif.bin"),
    "pickle": Kind(_pickles, _read_pickle, "file.pkl"),
    "npy": Kind(_npys, _read_npy, "file.npy"),
    "ground truth": Kind(_truth_json, _read_truth, "gnd.json", text=True),
    "labels": Kind(_labels, _read_labels, "label.json", text=True),
    "config": Kind(_configs, _read_config, "config.json", text=True),
    "checkpoint": Kind(_checkpoints, _read_checkpoint, "model.safetensors"),
    "index": Kind(_index_seeds, _read_index, "mutated", (ValueError, OSError)),
    "shard": Kind(_shards, _read_shard, "shard.bin"),
    "archive": Kind(_archives, _read_archive, "a.tgz", (ValueError, OSError)),
}
