import numpy as np
import pytest
import torch

from spatial_retrieval.layers.whitening import pca_whitening
from spatial_retrieval.models import ModelConfig, build_model, fuse, load_model
from spatial_retrieval.train.data import TensorSet
from spatial_retrieval.train.heads import HeadsOnMaps, save_trained


@pytest.fixture(scope="module")
def maps():
    items = torch.rand(40, 320, 3, 4, generator=torch.Generator().manual_seed(0))
    return TensorSet(items, np.repeat(np.arange(20), 2))


def heads_on(context=()):
    return HeadsOnMaps(build_model(ModelConfig(layer="stage5", context=context, dim=8)))


def test_before_training_the_last_layer_is_the_whitening_of_the_pooled_maps(maps):
    heads = heads_on().whiten(maps, power=0.3)
    rows = heads.pooled(maps.items)
    expected = pca_whitening(rows, power=0.3).apply(rows, 8)
    torch.testing.assert_close(heads.eval()(maps.items), expected, rtol=1e-3, atol=1e-4)


def test_what_was_trained_folds_into_one_layer_and_is_saved(maps, tmp_path):
    torch.manual_seed(0)
    heads = heads_on((("convolutions", {"width": 4}),)).whiten(maps)
    with torch.no_grad():
        heads.whitening.turn.weight.add_(0.1 * torch.randn(8, 8))
        heads.whitening.turn.bias.add_(0.1)
    heads.train()(maps.items[:8])  # moves the running statistics
    rows = heads.eval()(maps.items)
    heads.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, device="cpu")
    own = loaded.descriptor(loaded.context(maps.items))
    torch.testing.assert_close(own, rows, rtol=1e-3, atol=1e-4)


def test_the_backbone_is_no_part_of_the_heads_and_saved_only_when_trained(tmp_path):
    heads = heads_on((("convolutions", {"width": 4}),))
    assert not any("backbone" in name for name, _ in heads.named_parameters())
    model = heads.finish()
    save_trained(model, tmp_path / "whole")
    save_trained(model.requires_grad_(False), tmp_path / "heads")
    sizes = [(tmp_path / n / "model.safetensors").stat().st_size for n in ("whole", "heads")]
    assert sizes[0] > 10 * sizes[1]


def test_whitening_is_fitted_on_items_drawn_by_seed(maps):
    one, same, other = (heads_on().whiten(maps, most=12, seed=s) for s in (0, 0, 1))
    assert torch.equal(one.whitening.fixed.weight, same.whitening.fixed.weight)
    assert not torch.equal(one.whitening.fixed.weight, other.whitening.fixed.weight)


def test_the_whole_model_goes_where_its_heads_go(maps):
    # no second device is needed: "meta" holds shapes alone, and refuses to meet the CPU
    heads = heads_on((("convolutions", {"width": 4}),)).whiten(maps)
    model = heads.to("meta").finish()
    assert {p.device.type for p in (*model.parameters(), *model.buffers())} == {"meta"}


def test_maps_are_taken_to_the_heads_device(maps, monkeypatch):
    heads, devices = heads_on().to("meta"), []

    def pooled(batch):
        devices.append(batch.device.type)
        return torch.rand(len(batch), 320)

    monkeypatch.setattr(heads, "pooled", pooled)
    heads.whiten(maps)
    assert set(devices) == {"meta"}


def test_a_fused_model_is_refused():
    base, model = (build_model(ModelConfig(layer="stage5", dim=8)) for _ in range(2))
    with pytest.raises(ValueError, match=r"one branch .* got base, context reading stage5; fuse"):
        HeadsOnMaps(fuse(base, model, 0.5))
