"""Networks of many families describe photographs of any size; the weights are random."""

import math

import pytest
import torch

from spatial_retrieval.models import ModelConfig, build_model
from spatial_retrieval.models.backbone import build_backbone
from spatial_retrieval.models.timm_maps import Reading

# one small network of each family
FAMILIES = [
    "resnet10t",
    "regnetx_002",
    "regnety_002",
    "efficientnet_b0",
    "mobilenetv2_050",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small_035",
    "mnasnet_small",
    "convnext_atto",
    "convnextv2_atto",
    "densenet121",
    "dla46_c",
    "hrnet_w18_small",
    "hardcorenas_a",
    "ghostnet_050",
    "rexnet_100",
    "vit_tiny_patch16_224",
    "vit_small_patch14_dinov2",
    "vit_small_patch16_dinov3",
    "deit_tiny_patch16_224",
    "eva02_tiny_patch14_224",
    "flexivit_small",
    "cait_xxs24_224",
    "xcit_nano_12_p16_224",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "pvt_v2_b0",
    "twins_pcpvt_small",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "edgenext_xx_small",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "poolformer_s12",
    "coatnet_nano_rw_224",
    "coat_lite_tiny",
    "convit_tiny",
    "crossvit_tiny_240",
    "fastvit_t8",
    "fasternet_t0",
    "gcvit_xxtiny",
    "hgnetv2_b0",
    "hiera_tiny_224",
    "inception_next_atto",
    "levit_128s",
    "mambaout_femto",
    "gmlp_ti16_224",
    "resmlp_12_224",
    "mvitv2_tiny",
    "pit_ti_224",
    "repghostnet_050",
    "repvit_m0_9",
    "sequencer2d_s",
    "shvit_s1",
    "starnet_s1",
    "swiftformer_xs",
    "tiny_vit_5m_224",
    "vitamin_small_224",
    "visformer_tiny",
    "ese_vovnet19b_dw",
    "lcnet_035",
    "botnet26t_256",
    "maxvit_pico_rw_256",
    "volo_d1_224",
]
SIZES = ((360, 480), (480, 333), (97, 640))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_describes_photographs_of_any_size(name):
    backbone = build_backbone(name, pretrained=False)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for height, width in SIZES:
            (x,) = backbone.maps(torch.rand(1, 3, height, width, generator=generator), ["head"])
            assert x.shape[:2] == (1, backbone.channels) and bool(x.isfinite().all())
            if backbone.reading.size is None:  # a cell more or less at the border
                assert abs(x.shape[2] - height / backbone.stride) <= 2
                assert abs(x.shape[3] - width / backbone.stride) <= 2


@pytest.mark.parametrize(
    ("name", "layers", "dim"),
    [
        ("vit_tiny_patch16_224", ("head", "token"), 192),  # a class token
        ("swinv2_tiny_window8_256", ("head",), 768),  # signed, without one: the mean
        ("resnet10t", ("head",), 512),  # GeM
    ],
)
def test_the_pooling_fits_the_map(name, layers, dim):
    model = build_model(ModelConfig(backbone=name), pretrained=False)
    images = torch.rand(1, 3, 90, 120, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = model.backbone.maps(images, layers)
        expected = maps[-1].mean(dim=(2, 3))
        if name == "resnet10t":
            expected = maps[0].clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3)
        assert model.head.layers == layers and model.dim == dim
        expected = torch.nn.functional.normalize(expected, dim=1)
        torch.testing.assert_close(model(images), expected)


def test_the_class_token_is_that_of_the_network():
    backbone = build_backbone("vit_small_patch16_dinov3", pretrained=False)
    images = torch.rand(1, 3, 96, 128)
    with torch.inference_mode():
        x, token = backbone.maps(images, ["head", "token"])
        tokens = backbone.network.forward_features((images - backbone.mean) / backbone.std)
    assert x.shape == (1, 384, 6, 8) and token.shape == (1, 384, 1, 1)
    torch.testing.assert_close(token[0, :, 0, 0], tokens[0, 0])
    torch.testing.assert_close(x[0].flatten(1).T, tokens[0, -48:], atol=1e-4, rtol=1e-4)


def test_a_network_of_one_size_says_so(caplog):
    backbone = build_backbone("gmlp_ti16_224", pretrained=False)
    assert backbone.reading.size == (224, 224) and "224×224 pixels only" in caplog.text


def test_padding_leaves_no_cells_of_its_own():
    backbone = build_backbone("hrnet_w18_small", pretrained=False)
    assert backbone.reading.multiple > 1
    with torch.inference_mode():
        (x,) = backbone.maps(torch.rand(1, 3, 97, 640), ["head"])
    assert x.shape[2:] == (math.ceil(97 / 32), 20)


def test_a_classifier_is_left_out():
    for name in ("efficientnet_lite0", "resnet10t"):
        names = build_backbone(name, pretrained=False).state_dict()
        assert not [n for n in names if "classifier" in n or ".fc." in n]


def test_cells_that_saw_only_padding_are_cut_off():
    reading = Reading(multiple=64, stride=32)
    x = torch.arange(6.0).view(1, 1, 2, 3)  # of 64 × 96 … padded from 20 × 70
    padded = reading.fitted(torch.ones(1, 3, 20, 70))
    assert padded.shape[2:] == (64, 128)
    assert reading.cropped(torch.ones(1, 1, 2, 4), 20, 70).shape[2:] == (1, 3)
    assert torch.equal(reading.cropped(x, 64, 192), x)  # nothing was padded
