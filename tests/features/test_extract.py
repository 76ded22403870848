import copy
from concurrent.futures import ThreadPoolExecutor
from threading import get_ident

import numpy as np
import pytest
import torch
from pictures import draw
from PIL import Image

from spatial_retrieval import ImageError, describe, feature_maps
from spatial_retrieval.features import extraction
from spatial_retrieval.features.batches import alone, equal_shapes
from spatial_retrieval.features.extraction import describe_readable, load_tensor
from spatial_retrieval.images import BoxError, resize, to_tensor
from spatial_retrieval.rerank import LocalMethod


@pytest.fixture
def mixed(tmp_path):
    """Seven pictures of three shapes."""
    paths = []
    for i, (w, h) in enumerate(
        [(64, 64), (96, 64), (64, 96), (96, 64), (64, 64), (96, 64), (64, 96)]
    ):
        paths.append(tmp_path / f"{i}.png")
        draw(i, w, h).save(paths[-1])
    return paths


def test_rows_come_in_the_order_of_the_images(gem_model, mixed):
    together = describe(gem_model, mixed)
    alone = np.concatenate([describe(gem_model, [path]) for path in mixed])
    assert together.shape == (7, gem_model.dim) and together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_batches_hold_equal_shapes_only(gem_model, mixed, monkeypatch):
    shapes = []
    forward = type(gem_model).forward
    monkeypatch.setattr(
        type(gem_model), "forward", lambda s, x, *a: shapes.append(x.shape) or forward(s, x, *a)
    )
    monkeypatch.setattr(equal_shapes, "__kwdefaults__", {"batch_size": 2})
    monkeypatch.setattr(extraction, "_alone", extraction._batched)  # as on a GPU
    together = describe(gem_model, mixed)
    assert sorted((shape[0], tuple(shape[2:])) for shape in shapes) == [
        (1, (64, 96)),
        (2, (64, 64)),
        (2, (64, 96)),
        (2, (96, 64)),
    ]
    monkeypatch.undo()
    np.testing.assert_allclose(together, describe(gem_model, mixed), atol=1e-5)


def test_on_a_processor_a_row_does_not_depend_on_the_others(gem_model, mixed):
    together = describe(gem_model, mixed * 2)
    assert np.array_equal(together[:7], together[7:])
    torch.set_num_threads(2)
    try:
        assert np.array_equal(describe(gem_model, mixed), together[:7])
        assert torch.get_num_threads() == 2
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(1)


def test_threads_compute_ahead_in_order_with_one_core_each():
    torch.set_num_threads(3)
    try:
        found = list(alone(lambda i: (i, torch.get_num_threads(), get_ident()), 100))
    finally:
        torch.set_num_threads(1)
    assert [i for i, _ in found] == [i for _, (i, _, _) in found] == list(range(100))
    assert {n for _, (_, n, _) in found} == {1}
    assert get_ident() not in {thread for _, (_, _, thread) in found}


def test_bad_images_are_set_aside_with_reasons(gem_model, mixed):
    mixed[2].write_text("not a picture")
    mixed[5].write_bytes(mixed[5].read_bytes()[:100])
    result = describe_readable(gem_model, mixed)
    assert result.kept == [0, 1, 3, 4, 6] and sorted(result.failed) == [2, 5]
    assert "2.png" in result.failed[2] and "5.png" in result.failed[5]
    np.testing.assert_allclose(
        result.descriptors, describe(gem_model, [mixed[i] for i in result.kept]), atol=1e-5
    )
    with pytest.raises(ImageError, match="2.png"):
        describe(gem_model, mixed)
    with pytest.raises(ImageError, match="2.png"):
        feature_maps(gem_model, mixed)


def test_a_box_describes_the_part(gem_model, mixed):
    from PIL import Image

    part = Image.open(mixed[1]).convert("RGB").crop((10, 5, 80, 60))
    found = describe(gem_model, [mixed[1], mixed[1]], boxes=[(10, 5, 80, 60), None])
    np.testing.assert_allclose(found[0], describe(gem_model, [part])[0], atol=1e-5)
    np.testing.assert_allclose(found[1], describe(gem_model, [mixed[1]])[0], atol=1e-5)
    with pytest.raises(BoxError, match="inside the 96×64 image"):
        describe(gem_model, [mixed[1]], boxes=[(200, 0, 300, 10)])
    with pytest.raises(ValueError, match="for each of 2 images, got 1"):
        describe(gem_model, mixed[:2], boxes=[None])


def test_images_are_shrunk_to_size_and_never_enlarged(mixed):
    assert load_tensor(mixed[1], size=48).shape == (3, 32, 48)
    assert load_tensor(mixed[1], size=480).shape == (3, 64, 96)
    tensor = torch.rand(3, 8, 8)
    assert load_tensor(tensor) is tensor


def test_feature_maps_of_any_layer(gem_model, mixed):
    c = gem_model.backbone.channels
    maps = feature_maps(gem_model, mixed)
    assert [tuple(m.shape) for m in maps[:3]] == [(c, 2, 2), (c, 2, 3), (c, 3, 2)]
    stage4 = feature_maps(gem_model, mixed[:1], layer="stage4")[0]
    assert stage4.shape == (112, 4, 4) and not stage4.requires_grad
    with torch.inference_mode():
        stage5 = feature_maps(gem_model, mixed[:1], layer="stage5")
        rows = gem_model.from_maps({"head": maps[0][None], "stage5": stage5[0][None]})
    np.testing.assert_allclose(rows, describe(gem_model, mixed[:1]), atol=1e-5)


def test_nothing_in_nothing_out(gem_model):
    assert describe(gem_model, []).shape == (0, gem_model.dim)


def test_bad_numbers_are_refused(gem_model, mixed):
    with pytest.raises(ValueError, match="at least 1"):
        describe(gem_model, mixed, size=0)


@pytest.fixture
def large(tmp_path):
    """A JPEG that decoding may shrink eightfold: grey, with a picture in its far corner."""
    image = Image.new("RGB", (2048, 1536), "grey")
    image.paste(draw(7, 256, 256), (1792, 1280))
    image.save(tmp_path / "large.jpg", quality=95)
    return tmp_path / "large.jpg"


def test_a_box_counts_in_pixels_of_the_whole_photograph(large):
    part = load_tensor(large, size=128, box=(1792, 1280, 2048, 1536))
    expected = to_tensor(resize(draw(7, 256, 256), 16))
    assert part.shape == expected.shape and (part - expected).abs().mean() < 0.02


def test_local_features_read_a_box_in_the_same_pixels(large):
    seen = []
    method = LocalMethod("", seen.append, lambda a, b: None, size=128)
    method.features(large, (1792, 1280, 2048, 1536))
    difference = to_tensor(seen[0]) - to_tensor(resize(draw(7, 256, 256), 16))
    assert seen[0].size == (16, 16) and difference.abs().mean() < 0.02


def test_describe_raises_at_the_first_unreadable_image(gem_model, mixed, monkeypatch):
    decoded = []
    load = extraction.load_image
    monkeypatch.setattr(
        extraction, "load_image", lambda source, **o: decoded.append(source) or load(source, **o)
    )
    mixed[0].write_text("not a picture")
    with pytest.raises(ImageError, match=r"0\.png"):
        describe(gem_model, mixed * 30)
    assert len(decoded) < 100


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_describes(gem_model, mixed, dtype):
    half = copy.deepcopy(gem_model).to(dtype)
    rows = describe(half, mixed)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert (rows * describe(gem_model, mixed)).sum(axis=1).min() > 0.99
    maps = feature_maps(half, mixed[:1])
    assert maps[0].dtype == torch.float32
    assert half.fingerprint() != gem_model.fingerprint()


def test_an_image_that_the_model_cannot_take_is_set_aside_alone(gem_model, mixed, monkeypatch):
    forward = type(gem_model).forward

    def narrow(self, x, *scales):
        if float(x.amax()) > 1:
            raise RuntimeError("too bright")
        return forward(self, x, *scales)

    monkeypatch.setattr(type(gem_model), "forward", narrow)
    images = [torch.rand(3, 64, 64) for _ in range(4)]
    images[2] = images[2] + 1
    result = describe_readable(gem_model, images)
    assert result.kept == [0, 1, 3]
    assert "64×64 pixels can't be described (too bright)" in result.failed[2]
    with pytest.raises(ImageError, match="image 2"):
        describe(gem_model, images)


def test_no_memory_ends_a_run(gem_model, mixed, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(extraction, "load_image", full)
    with pytest.raises(MemoryError):
        describe_readable(gem_model, mixed)


def test_transient_reasons_are_told_apart(gem_model, mixed):
    mixed[0].write_text("not a picture")
    mixed[1].unlink()
    assert describe_readable(gem_model, mixed).transient == {1}
