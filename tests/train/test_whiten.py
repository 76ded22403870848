import numpy as np
import pytest
import torch

from spatial_retrieval.layers.pooling import GeM
from spatial_retrieval.layers.whitening import label_whitening
from spatial_retrieval.models import Branch, Head, ModelConfig, RetrievalModel, build_model, fuse
from spatial_retrieval.train.whiten import balance, fit_whitening, pooled_rows


@pytest.fixture
def model():
    backbone = build_model(ModelConfig(layer="stage1")).backbone
    branches = [Branch("stage1", GeM()), Branch("stage2", GeM())]
    source = {"name": "efficientnet_lite0", "layer": "stage1"}
    return RetrievalModel(backbone, Head(branches, torch.nn.Identity()), source=source).eval()


@pytest.fixture
def paths(photographs):
    return sorted(photographs.rglob("*.jpg"))


def test_branches_are_balanced_in_the_rows_and_in_the_model(model, paths):
    rows, failed = pooled_rows(model, paths)
    assert failed == {} and rows.shape == (6, 16 + 24)
    balanced = balance(model, rows, (1.0, 0.5))
    for part, weight in ((balanced[:, :16], 1.0), (balanced[:, 16:], 0.5)):
        assert np.linalg.norm(part - part.mean(axis=0), axis=1).mean() == pytest.approx(weight)
    np.testing.assert_allclose(pooled_rows(model, paths)[0], balanced, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="expected 2 weights, got 1"):
        balance(model, rows, (1.0,))


@pytest.mark.parametrize("shrink", [0.1, 0.9])
def test_the_whitening_is_that_of_the_rows_with_their_labels(model, paths, shrink):
    rows, _ = pooled_rows(model, paths)
    labels = np.array([0, 0, 0, 1, 1, 1])
    fitted = fit_whitening(model, rows, labels, dim=4, shrink=shrink)
    x = torch.from_numpy(rows)
    expected = label_whitening(x, torch.from_numpy(labels), shrink=shrink).apply(x, 4)
    found = fitted.head.whitened(x)
    torch.testing.assert_close(found @ found.T, expected.float() @ expected.float().T)
    assert fitted.dim == 4


def test_a_fused_model_has_no_one_whitening(model, paths):
    rows, _ = pooled_rows(model, paths)
    with pytest.raises(ValueError, match="expected a model of one head"):
        fit_whitening(fuse(model, model, 0.5), rows, None, dim=4)


def test_a_file_that_cannot_be_read_is_named(model, paths, tmp_path):
    (tmp_path / "no.jpg").write_bytes(b"none")
    rows, failed = pooled_rows(model, [paths[0], tmp_path / "no.jpg"])
    assert list(failed) == [1] and not rows[1].any() and rows[0].any()
