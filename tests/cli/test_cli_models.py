"""Models by name from the command line, offline."""

import json

import numpy as np
import pytest

from spatial_retrieval.cli import main
from spatial_retrieval.models import load_model


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
