"""Models by name from the command line, offline."""

import json
import pickle

import numpy as np
import pytest
from pictures import draw

from spatial_retrieval.cli import main
from spatial_retrieval.models import ModelConfig, build_model, load_model


@pytest.mark.parametrize("name", ["timm:resnet10t", "timm:vit_tiny_patch16_224@head"])
def test_a_timm_network_indexes_and_searches_offline(photographs, tmp_path, capsys, name):
    index = str(tmp_path / "index")
    options = ["--model", name, "--weights", "random"]
    assert main(["index", str(photographs), "-o", index, *options]) == 0
    query = photographs / "place0" / "view 0.jpg"
    capsys.readouterr()
    assert main(["search", index, str(query), "-k", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "place0/view 0.jpg" in json.dumps(found)


def test_random_weights_are_of_timm_networks_only(photographs, tmp_path, capsys):
    argv = ["embed", str(photographs), "-o", str(tmp_path / "x.npz"), "--weights", "random"]
    assert main(argv) == 2
    assert "expected --model timm:NAME" in capsys.readouterr().err


@pytest.mark.parametrize("labels", ["folders", "none"])
def test_a_whitening_is_learned_on_ones_own_photographs(photographs, tmp_path, labels):
    out = tmp_path / "mine"
    options = ["--labels", labels, "--dim", "4", "--size", "96"]
    assert main(["whiten", "lite0-gem", str(photographs), "-o", str(out), *options]) == 0
    model = load_model(out, device="cpu")
    assert model.dim == 4 and model.is_whitened
    assert (
        main(["embed", str(photographs), "-o", str(tmp_path / "x.npz"), "--model", str(out)]) == 0
    )
    rows = np.load(tmp_path / "x.npz")["descriptors"]
    assert rows.shape == (6, 4)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_a_whitening_is_learned_from_sfm120k_pairs(tmp_path, capsys):
    cids = [f"{i:032x}" for i in range(40)]
    for i, cid in enumerate(cids):
        path = tmp_path / "ims" / cid[-2:] / cid[-4:-2] / cid[-6:-4] / cid
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(i).save(path, "JPEG")
    part = {"cids": cids, "qidxs": [*range(0, 40, 2)], "pidxs": [*range(1, 40, 2)]}
    (tmp_path / "retrieval-SfM-120k-whiten.pkl").write_bytes(pickle.dumps(part, 2))
    build_model(ModelConfig(layer="stage1")).save_pretrained(tmp_path / "small")
    out = tmp_path / "mine"
    call = ["whiten", str(tmp_path / "small"), "-o", str(out), "--dim", "5"]
    assert main([*call, "--pairs", str(tmp_path)]) == 0
    assert "40 photographs, 5 numbers" in capsys.readouterr().out
    assert load_model(out, device="cpu").dim == 5
    assert main(call) == 2
    both = [*call[:2], str(tmp_path), *call[2:], "--pairs", str(tmp_path)]
    assert main(both) == 2
