import json

import numpy as np
import pytest
import torch

from spatial_retrieval.features.store import ShardStore
from spatial_retrieval.train.data import LabelledSet, TensorSet
from spatial_retrieval.train.map_set import CacheError, MapSet, cache_maps

LABELS = np.repeat(np.arange(4), 3)


class Images(TensorSet):
    """Twelve images that count how often they are asked for."""

    def __init__(self, broken: int | None = None, **labels):
        pixels = torch.rand(12, 3, 6, 8, generator=torch.Generator().manual_seed(0))
        super().__init__(pixels, LABELS, **{"twin_of": [1, 0, 3, 2], **labels})
        self.asked, self.broken = [], broken

    def __getitem__(self, key):
        if key[0] == self.broken:
            raise OSError("gone")
        self.asked.append(key[0])
        return super().__getitem__(key)


def encode(images):
    return torch.nn.functional.avg_pool2d(images, 2)


def make(folder, images, *, about=None, shard=5):
    return cache_maps(folder, images, encode, about or {"size": 8}, shard=shard)


def test_cached_maps_are_the_maps_in_half_precision(tmp_path):
    images = Images(difficulty=list("EMH" * 4), names=list("abcdefghijkl"))
    maps = make(tmp_path, images)
    assert isinstance(maps, LabelledSet) and len(maps) == 12
    for i in range(12):
        expected = encode(images.items[i : i + 1])[0].half().float()
        assert torch.equal(maps[i, 0], expected)
    np.testing.assert_array_equal(maps.labels, LABELS)
    np.testing.assert_array_equal(maps.twin_of, [1, 0, 3, 2])
    assert list(maps.difficulty[:3]) == ["E", "M", "H"] and maps.names[2] == "c"
    store = ShardStore(tmp_path, {"size": 8})
    assert store.get(2).arrays["maps"].shape == (2, 3, 3, 4)
    assert store.get(0).arrays["maps"].dtype == np.float16


def test_a_cache_goes_on_where_it_stopped_and_is_not_made_twice(tmp_path):
    with pytest.raises(OSError, match="gone"):
        make(tmp_path, Images(broken=7))
    with pytest.raises(CacheError, match=r"safetensors: missing; the cache is unfinished"):
        MapSet(tmp_path)
    again = Images()
    make(tmp_path, again)
    assert again.asked == list(range(5, 12))
    third = Images()
    make(tmp_path, third)
    assert third.asked == []


@pytest.mark.parametrize(
    ("labels", "change"),
    [({}, {"about": {"size": 9}}), ({}, {"shard": 4}), ({"twin_of": None}, {})],
)
def test_a_cache_of_something_else_is_refused(tmp_path, labels, change):
    make(tmp_path, Images())
    with pytest.raises(CacheError, match="maps of something else"):
        make(tmp_path, Images(**labels), **change)


def test_damaged_files_are_named(tmp_path):
    make(tmp_path, Images())
    store = ShardStore(tmp_path, {"size": 8})
    store.path(1).write_bytes(store.path(1).read_bytes()[:100])
    with pytest.raises(CacheError, match=r"safetensors: damaged"):
        MapSet(tmp_path)
    store.put(1, {"maps": np.zeros((3, 3, 3, 4), np.float16)})
    with pytest.raises(CacheError, match="expected 5 maps"):
        MapSet(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "version": 9}))
    with pytest.raises(CacheError, match="expected version 2, got 9"):
        MapSet(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(CacheError, match="no readable feature cache"):
        MapSet(tmp_path)


def test_a_map_that_half_precision_cannot_hold_is_refused(tmp_path):
    with pytest.raises(CacheError, match="finite maps"):
        cache_maps(tmp_path, Images(), lambda x: x * 1e6, {})
