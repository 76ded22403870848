"""Photographs as people and attackers have them: each kind ended a run, or was misread, before."""

import io
import os
import socket
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from spatial_retrieval import images
from spatial_retrieval.decoding import containers
from spatial_retrieval.images import ImageError, load_image


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(width=160, height=200):
    x, y = np.meshgrid(np.linspace(20, 235, width), np.linspace(20, 235, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def exif(kind=3, value=b"\x06\0\0\0", extra=(), count=1):
    """A TIFF block, little-endian, with an orientation written as ``kind``."""
    entries = [*extra, struct.pack("<HHI4s", 0x0112, kind, count, value)]
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("kind", "value"),
    [(1, b"\6\0\0\0"), (2, b"6\0\0\0"), (3, b"\6\0\0\0"), (4, b"\6\0\0\0"), (8, b"\6\0\0\0")],
)
def test_the_orientation_counts_whatever_type_it_has(form, kind, value):
    assert load_image(encoded(picture(), form, exif=exif(kind, value))).size == (200, 160)


def test_a_damaged_exif_block_turns_the_photograph_all_the_same():
    # an ASCII field that points behind the end, a rational with a count of 2³¹, an unknown type
    broken = [
        struct.pack("<HHII", 0x010F, 2, 900, 2**31 - 1),
        struct.pack("<HHII", 0x011A, 5, 2**31, 12),
        struct.pack("<HHII", 0x9999, 77, 1, 1),
    ]
    assert load_image(encoded(picture(), "JPEG", exif=exif(extra=broken))).size == (200, 160)
    for cut in range(8, 26):
        assert load_image(encoded(picture(), "JPEG", exif=exif()[:cut])).size == (160, 200)


def test_an_exif_directory_that_points_at_itself_ten_thousand_times_takes_no_memory():
    many = [struct.pack("<HHII", 0x8000 + i, 7, 60_000, 8) for i in range(5000)]
    data = encoded(picture(), "PNG", exif=exif(extra=many) + bytes(60_000))
    start = time.process_time()
    assert load_image(data).size == (200, 160)
    assert time.process_time() - start < 1


def test_text_and_private_chunks_are_not_read():
    data = encoded(picture(9, 7), "PNG")
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)))
    damaged = chunk(b"gAMA", b"1234")[:-1] + b"?"
    assert load_image(data[:33] + bomb + damaged + data[33:]).size == (9, 7)


@pytest.mark.parametrize("missing", [2, 12, 40])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
    ],
)
def test_a_file_without_its_end_is_shown_as_other_viewers_do(kind, options, missing):
    noise = np.random.default_rng(0).integers(0, 255, (200, 160, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind, **options)
    found = np.asarray(load_image(data[:-missing]))
    whole = np.asarray(load_image(data))
    assert (found == whole)[:180].all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "GIF"])
def test_half_a_file_is_refused(kind):
    data = encoded(picture(), kind)
    with pytest.raises(ImageError):
        load_image(data[: len(data) // 2])


def test_a_jpeg_of_twenty_thousand_scans_is_refused_at_once():
    data = encoded(picture(), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    bomb = data[:start] + data[start:-2] * 20_000 + b"\xff\xd9"
    began = time.process_time()
    with pytest.raises(ImageError, match="more than 100 scans"):
        load_image(bomb)
    assert time.process_time() - began < 2
    assert containers.count_scans(data, 100) < 20
    with_video = data + os.urandom(20_000_000)  # a motion photograph
    assert load_image(with_video).size == (160, 200)


@pytest.mark.parametrize("size", [(1, 2_000_000), (2_000_000, 1)])
def test_a_long_thin_png_is_refused_at_once(size):
    with pytest.raises(ImageError, match="side of 2000000"):
        load_image(encoded(Image.new("L", size), "PNG"))


@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (2000, 2), (16, 16), (1, 65_000)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_every_size_of_a_photograph_is_read(size, kind):
    assert load_image(encoded(Image.new("RGB", size), kind), draft=64).size[0] >= 1


def test_a_tiff_that_announces_more_than_it_holds_is_refused():
    entries = [struct.pack("<HHII", tag, 4, 60_000_000, 8) for tag in (256, 257, 273)]
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", 3) + b"".join(entries) + bytes(99)
    with pytest.raises(ImageError, match="strips|announces"):
        load_image(data)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.jpg"))
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    for name in ("pipe.jpg", "socket.jpg", "zero.jpg", "folder.jpg"):
        with pytest.raises(ImageError, match="no regular file") as caught:
            load_image(tmp_path / name)
        assert name in str(caught.value) and not caught.value.transient


def test_a_sparse_file_is_not_read(tmp_path, monkeypatch):
    for head, reason in ((b"", "another kind"), (b"\xff\xd8\xff", "more than the limit")):
        path = tmp_path / "sparse.jpg"
        path.write_bytes(head)
        os.truncate(path, 2**36)
        with pytest.raises(ImageError, match=reason):
            load_image(path)


def test_what_may_be_readable_another_time_is_transient(tmp_path, monkeypatch):
    with pytest.raises(ImageError, match="No such file") as caught:
        load_image(tmp_path / "gone.jpg")
    assert caught.value.transient

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(images, "read_regular", refused)
    with pytest.raises(ImageError, match="Permission denied") as caught:
        load_image(tmp_path / "gone.jpg")
    assert caught.value.transient


@pytest.mark.parametrize("error", [RuntimeError("odd"), AttributeError("x"), AssertionError()])
def test_whatever_a_decoder_raises_is_an_image_error(monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(images, "decode", fails)
    with pytest.raises(ImageError, match=r"^image: cannot be read \("):
        load_image(encoded(picture(), "PNG"))


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_memory_errors_and_interrupts_pass(monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(images, "decode", fails)
    with pytest.raises(error):
        load_image(encoded(picture(), "PNG"))


def test_odd_sources_are_image_errors():
    for source in (io.StringIO("text"), object(), "a\0b", 7):
        with pytest.raises(ImageError):
            load_image(source)


def _swapped_profile():
    """A profile in which red and blue are exchanged: sRGB's with two tags exchanged."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_embedded_profile_is_converted_to_srgb(kind):
    red = Image.new("RGB", (16, 16), (250, 10, 10))
    pixel = np.asarray(load_image(encoded(red, kind, icc_profile=_swapped_profile())))[8, 8]
    assert pixel[2] > 200 and pixel[0] < 60


@pytest.mark.parametrize("profile", [b"", b"no profile", _swapped_profile()[:200], b"\0" * 3000])
def test_a_damaged_profile_is_left_aside(profile):
    data = encoded(picture(), "PNG", icc_profile=profile)
    assert np.array_equal(np.asarray(load_image(data)), np.asarray(picture()))


def test_a_profile_is_applied_once():
    red = Image.new("RGB", (4, 4), (250, 10, 10))
    red.info["icc_profile"] = _swapped_profile()
    once = load_image(red)
    assert np.asarray(once)[0, 0, 2] > 200
    assert np.array_equal(np.asarray(load_image(once)), np.asarray(once))
    assert red.info["icc_profile"] == _swapped_profile()


def test_a_profile_of_another_colour_space_does_not_break_cmyk():
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", icc_profile=b"junk")
    assert load_image(data).getpixel((4, 4))[0] > 200
