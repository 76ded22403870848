import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spatial_retrieval.models.checkpoints import load_checkpoint
from spatial_retrieval.models.checkpoints.read import _numpy_names

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3)}


def saved(path, value, **options):
    torch.save(value, path, **options)
    return path


def assert_same(state):
    assert list(state) == list(STATE)
    for name, value in STATE.items():
        assert torch.equal(state[name], value)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("where", [None, "state_dict", "model_state", "model_state_dict", "model"])
def test_a_state_wherever_its_project_keeps_it(tmp_path, new, where):
    value = {where: STATE, "epoch": 3} if where else STATE
    path = saved(tmp_path / "file.pth", value, _use_new_zipfile_serialization=new)
    state, meta = load_checkpoint(path)
    assert_same(state)
    assert meta == {}


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_numpy_arrays_in_the_metadata(tmp_path, new):
    whitening = {"m": np.arange(3.0)[:, None], "P": np.eye(3, dtype=np.float32)}
    meta = {"architecture": "resnet101", "Lw": {"set": {"ss": whitening}}, "p": np.float64(2.5)}
    content = {"meta": meta, "state_dict": STATE}
    state, found = load_checkpoint(
        saved(tmp_path / "file.pth", content, _use_new_zipfile_serialization=new)
    )
    assert_same(state)
    assert found["architecture"] == "resnet101" and found["p"] == 2.5
    for name, value in whitening.items():
        np.testing.assert_array_equal(found["Lw"]["set"]["ss"][name], value)


def test_numpy_is_known_by_its_old_and_its_new_name():
    names = {entry[1] for entry in _numpy_names() if isinstance(entry, tuple)}
    assert {"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"} <= names


def test_nothing_stays_allowed_afterwards(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    load_checkpoint(saved(tmp_path / "file.pth", STATE))
    assert set(torch.serialization.get_safe_globals()) == before


def test_safetensors(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors", metadata={"licence": "MIT"})
    state, meta = load_checkpoint(tmp_path / "model.safetensors")
    assert set(state) == set(STATE) and torch.equal(state["a.weight"], STATE["a.weight"])
    assert meta == {"licence": "MIT"}
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"cut\.safetensors: no readable safetensors"):
        load_checkpoint(tmp_path / "cut.safetensors")


def test_the_names_that_data_parallel_adds_are_taken_off(tmp_path):
    wrapped = {f"module.{name}": value for name, value in STATE.items()}
    assert_same(load_checkpoint(saved(tmp_path / "file.pth", wrapped))[0])
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert set(load_checkpoint(saved(tmp_path / "file.pth", mixed))[0]) == set(mixed)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, form):
    path, trap = tmp_path / "file.pth", tmp_path / "trap"
    content = {"state_dict": STATE, "meta": Hostile(trap)}
    if form == "bare":
        path.write_bytes(pickle.dumps(Hostile(trap)))
    else:
        saved(path, content, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ValueError, match=r"file\.pth: refused.*nothing was executed") as caught:
        load_checkpoint(path)
    assert not trap.exists()
    assert form == "bare" or f"asks for {os.mkdir.__module__}.mkdir and" in str(caught.value)


def test_arrays_of_objects_and_of_other_types_are_refused(tmp_path):
    for value in (np.array([{}, 1], dtype=object), np.array([1 + 2j])):
        path = saved(tmp_path / "file.pth", {"state_dict": STATE, "meta": {"Lw": value}})
        with pytest.raises(ValueError, match="refused, the file asks for .*numpy"):
            load_checkpoint(path)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path, new, share):
    path = saved(tmp_path / "file.pth", STATE, _use_new_zipfile_serialization=new)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"file\.pth: (no readable checkpoint|refused)"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"\x80\x04.", b"PK\x03\x04" * 9])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.pth: (no readable checkpoint|refused)"):
        load_checkpoint(tmp_path / "file.pth")


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(ValueError, match="no such file"):
            load_checkpoint(path)


def test_compressed_archives_are_refused(tmp_path):
    path = saved(tmp_path / "plain.pth", STATE)
    with (
        zipfile.ZipFile(path) as plain,
        zipfile.ZipFile(tmp_path / "file.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.namelist():
            packed.writestr(entry, plain.read(entry))
    with pytest.raises(ValueError, match="refused, a compressed archive"):
        load_checkpoint(tmp_path / "file.pth")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "expected a state dict, got list"),
        ({}, "expected a state dict, got dict"),
        ({"a": torch.ones(1), "b": "text"}, "got str at 'b'"),
        ({3: torch.ones(1)}, "expected tensors by name, got Tensor at 3"),
        ({"a": torch.tensor([1.0, float("nan")])}, "expected finite real numbers, a holds others"),
        ({"a": torch.tensor([float("inf")]).half()}, "expected finite real numbers, a holds"),
        ({"a": torch.ones(1, dtype=torch.complex64)}, "expected finite real numbers, a holds"),
        ({"a": torch.ones(2, 2).to_sparse()}, "expected dense tensors, got a"),
        ({"a": torch.empty(2, device="meta")}, "expected dense tensors, got a"),
        ({"a": torch.ones(1).expand(10**9)}, "expected 1000000000 numbers in a"),
        ({"state_dict": STATE, "meta": {"m": np.array([np.nan])}}, r"meta\.m holds others"),
    ],
)
def test_what_the_file_holds_is_checked(tmp_path, value, message):
    with pytest.raises(ValueError, match=message):
        load_checkpoint(saved(tmp_path / "file.pth", value))
