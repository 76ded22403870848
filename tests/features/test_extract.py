import numpy as np
import pytest
import torch
from pictures import draw

from spatial_retrieval import ImageError, describe, feature_maps
from spatial_retrieval.features.extraction import describe_readable, load_tensor
from spatial_retrieval.images import BoxError


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
    together = describe(gem_model, mixed, batch_size=2)
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
    describe(gem_model, mixed, batch_size=2)
    assert sorted((shape[0], tuple(shape[2:])) for shape in shapes) == [
        (1, (64, 96)),
        (2, (64, 64)),
        (2, (64, 96)),
        (2, (96, 64)),
    ]


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
        rows = gem_model.descriptor(torch.stack(maps[:1]))
    np.testing.assert_allclose(rows, describe(gem_model, mixed[:1]), atol=1e-5)


def test_nothing_in_nothing_out(gem_model):
    assert describe(gem_model, []).shape == (0, gem_model.dim)


def test_bad_numbers_are_refused(gem_model, mixed):
    for options in [{"size": 0}, {"batch_size": 0}]:
        with pytest.raises(ValueError, match="at least 1"):
            describe(gem_model, mixed, **options)
