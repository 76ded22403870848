import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from spatial_retrieval.facades.data import twin_facades
from spatial_retrieval.images import to_tensor
from spatial_retrieval.models import ModelConfig, build_model
from spatial_retrieval.models.backbone import build_backbone
from spatial_retrieval.train.chunks import Instances, image_chunks
from spatial_retrieval.train.maps import EncodedSet, cached_maps, cached_rows
from spatial_retrieval.train.photographs import photo_folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def backbone():
    return build_backbone(layer="stage4")


def save_photographs(folder, seed):
    rng = np.random.default_rng(seed)
    for name in ("a/0.png", "a/1.png", "b/deep/0.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (80, 110, 3), np.uint8)).save(folder / name)
    return folder


def test_a_second_folder_with_the_same_names_gets_its_own_maps(tmp_path, backbone):
    folders = [save_photographs(tmp_path / str(i), seed=i) for i in range(2)]
    one, other = (cached_maps(Instances(f, 3, 2, 64), backbone) for f in folders)
    assert list(one.names) == list(other.names)
    assert not any(torch.equal(one[i, 0], other[i, 0]) for i in range(6))


def test_a_photograph_that_was_exchanged_gets_a_new_map(tmp_path, backbone):
    folder = save_photographs(tmp_path / "photographs", seed=0)
    before = cached_maps(Instances(folder, 3, 2, 64), backbone)[0, 0]
    save_photographs(folder, seed=1)
    assert not torch.equal(before, cached_maps(Instances(folder, 3, 2, 64), backbone)[0, 0])


def test_each_view_of_an_instance_is_another_and_always_the_same(tmp_path):
    source = Instances(save_photographs(tmp_path / "photographs", seed=0), 2, 4, 64)
    (chunk,), (again,) = (list(image_chunks(source)) for _ in range(2))
    views = [chunk[i, 0] for i in range(8)]
    assert chunk.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    for i in range(8):
        assert torch.equal(views[i], again[i, 5])
        assert not any(torch.equal(views[i], views[j]) for j in range(i))


def test_photographs_are_taken_from_each_sub_folder_in_turn(tmp_path):
    source = Instances(save_photographs(tmp_path / "photographs", seed=0), 2, 1, 64)
    assert {name.split("/")[0] for _, name in source.chosen()} == {"a", "b"}


def test_maps_are_those_of_the_backbone_that_is_passed(backbone):
    twins = twin_facades("train", landmarks=2, views=1, size=64)
    other = build_backbone(layer="stage4", pretrained=False)
    for network in (backbone, other, build_backbone(layer="stage5")):
        maps = cached_maps(twins, network)
        with torch.inference_mode():
            expected = network(torch.stack([to_tensor(twins.image(i)) for i in range(2)]))
        found = torch.stack([maps[i, 0] for i in range(2)])
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


def test_maps_of_two_sizes_lie_beside_each_other(backbone):
    shapes = [
        cached_maps(twin_facades("train", landmarks=2, views=1, size=size), backbone)[0, 0].shape
        for size in (64, 96)
    ]
    assert [tuple(shape[1:]) for shape in shapes] == [(4, 4), (6, 6)]


def test_twins_of_a_chunk_keep_their_labels(monkeypatch, backbone):
    from spatial_retrieval.train import chunks

    monkeypatch.setattr(chunks, "_LANDMARKS", 2)
    twins = twin_facades("train", landmarks=3, views=2, size=64)
    maps = cached_maps(twins, backbone)
    assert len(maps.parts) == 2 and list(maps.names) == twins.names
    np.testing.assert_array_equal(maps.labels, twins.labels)
    np.testing.assert_array_equal(maps.twin_of, [1, 0, -1])
    assert maps.difficulty.tolist() == twins.difficulty.tolist()


def test_rows_are_what_the_model_says(tmp_path):
    model = build_model(ModelConfig(layer="stage5"))
    source = Instances(save_photographs(tmp_path / "photographs", seed=0), 3, 2, 64)
    rows = cached_rows(source, model)
    (chunk,) = image_chunks(source)
    expected = model(torch.stack([chunk[i, 0] for i in range(6)])).detach()
    torch.testing.assert_close(rows, expected, rtol=2e-3, atol=2e-3)


def test_maps_and_rows_are_computed_where_the_model_is(tmp_path):
    # "meta" is a device that every machine has; it computes nothing, which is the error expected
    folder = save_photographs(tmp_path / "photographs", seed=0)
    model = build_model(ModelConfig(layer="stage5")).to("meta")
    photos = photo_folder(folder)
    for compute in (
        lambda: cached_maps(Instances(folder, 2, 1, 64), model.backbone),
        lambda: EncodedSet(photos, model.backbone)[0, 0],
    ):
        with pytest.raises(NotImplementedError, match="meta tensor"):
            compute()


def test_photographs_of_any_size_are_encoded_when_asked_for_and_once(tmp_path):
    folder = save_photographs(tmp_path / "photographs", seed=0)
    Image.new("RGB", (64, 128)).save(folder / "b" / "tall.png")

    class Counting(nn.Module):
        asked = 0

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            Counting.asked += 1
            return x[:, :, ::16, ::16]

    maps = EncodedSet(photo_folder(folder), Counting())
    assert maps.labels.tolist() == [0, 0, 1, 1] and Counting.asked == 0
    assert [tuple(maps[i, 0].shape) for i in (0, 3, 3)] == [(3, 5, 7), (3, 8, 4), (3, 8, 4)]
    assert Counting.asked == 2
