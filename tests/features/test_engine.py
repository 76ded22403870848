import builtins

import numpy as np
import pytest
import torch
from pictures import draw

from spatial_retrieval import describe, feature_maps, load_model
from spatial_retrieval.features import engine
from spatial_retrieval.features.engine import with_engine

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.fixture(scope="module", params=["lite0-gem", "lite0-spatial"])
def models(request):
    model = load_model(request.param, device="cpu").requires_grad_(False)
    return model, with_engine(model, "onnx")


def test_descriptors_of_any_shape_are_the_same(models):
    model, fast = models
    images = [draw(i, w, h) for i, (w, h) in enumerate([(96, 64), (333, 200), (40, 480), (33, 33)])]
    expected, found = describe(model, images), describe(fast, images)
    assert (expected * found).sum(axis=1).min() > 0.99999
    for a, b in zip(feature_maps(model, images), feature_maps(fast, images), strict=True):
        assert a.shape == b.shape and float((a - b).abs().max()) < 1e-3 * float(a.abs().max())


def test_scales_and_other_layers_work_too(models):
    model, fast = models
    image, scales = [draw(1, 128, 96)], (1.0, 0.7)
    np.testing.assert_allclose(
        describe(fast, image, scales=scales), describe(model, image, scales=scales), atol=1e-4
    )
    assert feature_maps(fast, image, layer="stage4")[0].shape == (112, 6, 8)


def test_it_is_the_same_model_for_an_index(models):
    model, fast = models
    assert fast.fingerprint() == model.fingerprint() and fast.dim == model.dim
    assert not isinstance(model.backbone, engine.OnnxBackbone)  # it was left alone


def test_auto_takes_the_faster_one_that_agrees(models, monkeypatch):
    model, _ = models
    times = {True: 1.0, False: 2.0}
    monkeypatch.setattr(
        engine, "_seconds", lambda m: times[isinstance(m.backbone, engine.OnnxBackbone)]
    )
    assert isinstance(with_engine(model).backbone, engine.OnnxBackbone)
    times[True] = 3.0
    assert with_engine(model) is model
    times[True] = 1.0
    monkeypatch.setattr(engine, "_AGREES", 1.1)
    assert with_engine(model) is model
    with pytest.raises(ValueError, match="its descriptors differ"):
        with_engine(model, "onnx")


def test_what_onnx_cannot_take_is_said(models, monkeypatch):
    half = load_model("lite0-gem", device="cpu").half()
    assert with_engine(half) is half
    with pytest.raises(ValueError, match="expected float32 on a processor"):
        with_engine(half, "onnx")
    with pytest.raises(ValueError, match="auto, torch, onnx, got 'fast'"):
        with_engine(half, "fast")
    assert with_engine(models[0], "torch") is models[0]


def test_without_onnx_auto_is_torch_and_onnx_names_the_extra(models, monkeypatch):
    load = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert with_engine(models[0]) is models[0]
    with pytest.raises(ImportError, match=r"pip install spatial-retrieval\[onnx\]"):
        with_engine(models[0], "onnx")


def test_timing_leaves_the_number_of_threads():
    before = torch.get_num_threads()
    assert engine._seconds(load_model("lite0-gem", device="cpu")) > 0
    assert torch.get_num_threads() == before
