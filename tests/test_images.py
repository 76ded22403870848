import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spatial_retrieval.decoding import formats
from spatial_retrieval.decoding.formats import is_supported
from spatial_retrieval.images import (
    BoxError,
    ImageError,
    check_box,
    crop_query,
    load_image,
    resize,
    to_tensor,
)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(width=40, height=24):
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "HEIF"])
def test_every_format_is_read(kind):
    name = {"WEBP": "WebP", "HEIF": "HEIC"}.get(kind, kind)
    if not is_supported(name):
        pytest.skip(f"{name} is not supported here")
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    image = load_image(encoded(picture(), kind))
    assert image.mode == "RGB" and image.size == (40, 24)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(picture())).mean() < 6


def test_the_first_frame_of_an_animation_is_read():
    first, second = Image.new("RGB", (9, 5), "red"), Image.new("RGB", (9, 5), "blue")
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    assert np.asarray(load_image(data))[2, 3].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["PPM", "ICO", "PCX"])
def test_other_formats_are_refused(kind):
    with pytest.raises(ImageError, match="expected a JPEG, PNG, WebP"):
        load_image(encoded(picture(), kind))


def test_a_format_that_needs_a_plugin_says_which_and_is_tried_again(monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(ImageError, match=r"HEIC cannot be read here; pip install") as caught:
        load_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert caught.value.transient


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = load_image(encoded(picture(), "JPEG", exif=exif, quality=95))
    assert image.size == ((40, 24) if orientation < 5 else (24, 40))
    # where the red maximum (right edge of the stored picture) ends up
    columns = np.asarray(image)[..., 0].mean(axis=0)
    rows = np.asarray(image)[..., 0].mean(axis=1)
    bright = {1: "right", 2: "left", 3: "left", 4: "right", 5: "low", 6: "low", 7: "up", 8: "up"}
    side = (
        ("right" if columns[-1] > columns[0] else "left")
        if orientation < 5
        else ("low" if rows[-1] > rows[0] else "up")
    )
    assert side == bright[orientation]


def test_16_bit_grey_is_scaled_not_clipped():
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    image = load_image(encoded(Image.fromarray(values), "PNG"))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_palette_grey_and_alpha_become_rgb():
    assert load_image(encoded(picture().convert("P"), "PNG")).mode == "RGB"
    assert load_image(encoded(picture().convert("L"), "PNG")).mode == "RGB"
    assert load_image(encoded(picture().convert("1"), "PNG")).mode == "RGB"
    assert load_image(encoded(picture().convert("CMYK"), "JPEG")).mode == "RGB"
    clear = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    assert np.asarray(load_image(encoded(clear, "PNG"))).tolist() == [[[255] * 3] * 2]


def test_a_palette_with_transparency_lies_over_white():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    pixels = np.asarray(load_image(encoded(image, "PNG", transparency=0)))
    assert pixels.tolist() == [[[255, 255, 255], [0, 255, 0]]]


def bomb(side=30_000):
    """A PNG header that announces side² pixels, and next to no data."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 10_000)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    )


def test_a_900_megapixel_bomb_is_an_error_before_it_is_decoded():
    with pytest.raises(ImageError, match="30000×30000 pixels are more than the limit of 40"):
        load_image(bomb())


def test_the_pixel_limit_is_inclusive():
    data = encoded(picture(), "PNG")
    assert load_image(data, max_pixels=40 * 24).size == (40, 24)
    with pytest.raises(ImageError, match="limit"):
        load_image(data, max_pixels=40 * 24 - 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, kind):
    path = tmp_path / f"half.{kind.lower()}"
    data = encoded(picture(200, 200), kind)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=str(path)):
        load_image(path)


def test_what_is_no_image_is_an_error_that_names_it(tmp_path):
    text = tmp_path / "note.jpg"
    text.write_text("not a photograph")
    empty = tmp_path / "empty.png"
    empty.touch()
    for path, reason in [
        (text, "another kind of file"),
        (empty, "an empty file"),
        (tmp_path / "gone.jpg", "No such file"),
        (tmp_path, "Is a directory"),
    ]:
        with pytest.raises(ImageError, match=reason) as caught:
            load_image(path)
        assert str(path) in str(caught.value)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]))
def test_random_bytes_raise_image_errors_and_nothing_else(data, magic):
    with pytest.raises(ImageError):
        load_image(magic + data)


@given(st.data())
def test_a_damaged_png_is_read_or_refused_never_anything_else(data):
    whole = bytearray(encoded(picture(8, 8), "PNG"))
    whole[data.draw(st.integers(8, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert load_image(bytes(whole)).mode == "RGB"
    except ImageError as error:
        assert "image" in str(error)


def test_draft_decodes_a_large_jpeg_smaller_and_never_below_twice_the_size():
    data = encoded(picture(1600, 800), "JPEG")
    assert load_image(data).size == (1600, 800)
    assert load_image(data, draft=200).size == (400, 200)
    assert load_image(data, draft=300).size == (800, 400)
    assert load_image(data, draft=1000).size == (1600, 800)


def test_resize_shrinks_and_never_enlarges():
    assert resize(picture(40, 24), 20).size == (20, 12)
    assert resize(picture(40, 24), 100).size == (40, 24)
    assert resize(picture(1000, 1), 10).size == (10, 1)
    with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
        resize(picture(), 0)


def test_a_query_crop_keeps_the_scale_of_the_whole_photograph():
    image = picture(400, 200)
    # longest side: 100 · max(crop) / max(image) = 100 · 200 / 400
    assert crop_query(image, (100, 50, 300, 150), 100).size == (50, 25)
    assert crop_query(image, (0, 0, 400, 200), 100).size == (100, 50)
    assert crop_query(image, (0, 0, 40, 20), 4000).size == (40, 20)
    assert crop_query(image, None, 100).size == (100, 50)


def test_a_crop_shows_what_the_box_encloses():
    crop = crop_query(picture(400, 200), (300, 0, 400, 50), 400)
    assert crop.size == (100, 50)
    assert np.array_equal(np.asarray(crop), np.asarray(picture(400, 200))[:50, 300:])


@pytest.mark.parametrize(
    "box",
    [
        (5, 5, 5, 9),
        (9, 2, 3, 8),
        (50, 0, 60, 10),
        (-9, -9, -1, -1),
        (0, 0, float("nan"), 4),
        (1, 2),
    ],
)
def test_a_box_that_shows_nothing_is_an_error(box):
    with pytest.raises(BoxError, match="expected a box"):
        check_box(box, (40, 24))


def test_a_box_is_cut_to_the_image_and_rounded():
    assert check_box((-5, 2.4, 99, 20.6), (40, 24)) == (0, 2, 40, 21)


def test_to_tensor_is_rgb_in_zero_to_one():
    tensor = to_tensor(Image.new("RGB", (3, 2), (255, 0, 51)))
    assert tensor.shape == (3, 2, 3)
    assert tensor[:, 0, 0].tolist() == pytest.approx([1, 0, 0.2])


def test_a_pil_image_is_converted_and_not_changed():
    image = picture().convert("L")
    assert load_image(image).mode == "RGB"
    assert image.mode == "L"
