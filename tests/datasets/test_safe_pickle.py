import contextlib
import io
import os
import pickle
import subprocess

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spatial_retrieval.datasets.pickled_npy import load_pickled_npy
from spatial_retrieval.datasets.safe_pickle import UnsafePickleError, load_plain_pickle

PLAIN = {
    "imlist": ["a_1", "ü"],
    "numbers": [0, 1, 255, 70000, -3, 2**70, 0.5, True, False, None],
    "nested": [({"k": [()]}, b"bytes", (1, 2, 3, 4))],
}


class _Calls:
    """What a hostile pickle does: its reader calls a function."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def _write(tmp_path, data, name="file.pkl"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back_from_every_protocol(tmp_path, protocol):
    # before protocol 3 bytes are written as a call, which is refused
    value = PLAIN if protocol >= 3 else {**PLAIN, "nested": [({"k": [()]}, (1, 2, 3, 4))]}
    path = _write(tmp_path, pickle.dumps(value, protocol))
    assert load_plain_pickle(path) == value


def test_text_of_python_2_is_read(tmp_path):
    # pickle.dumps({"cids": ["ab", u"\xfc"]}, 2) of Python 2.7
    data = b"\x80\x02}q\x00U\x04cidsq\x01]q\x02(U\x02abq\x03X\x02\x00\x00\x00\xc3\xbcq\x04es."
    assert load_plain_pickle(_write(tmp_path, data)) == {"cids": ["ab", "ü"]}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("depth", [0, 1, 40])
@pytest.mark.parametrize("reader", [load_plain_pickle, load_pickled_npy])
def test_a_call_is_refused_at_any_depth_and_not_made(tmp_path, protocol, depth, reader):
    marker = tmp_path / "executed"
    value = _Calls(os.system, f"touch {marker}")
    for level in range(depth):
        value = [value] if level % 2 else {"gnd": value}
    data = pickle.dumps(value, protocol)
    if reader is load_pickled_npy:
        data = _npy_header() + data
    with pytest.raises(UnsafePickleError, match="nothing was executed") as error:
        reader(_write(tmp_path, data))
    assert "system" in str(error.value)
    assert not marker.exists()
    pickle.loads(pickle.dumps(_Calls(os.system, f"touch {marker}")))  # the attack itself works
    assert marker.exists()


@pytest.mark.parametrize(
    "value",
    [os.system, subprocess.Popen, np.float64(1), np.zeros(2), {1, 2}, slice(1), PLAIN.__class__],
    ids=str,
)
def test_every_name_and_object_is_refused(tmp_path, value):
    with pytest.raises(UnsafePickleError, match="refused"):
        load_plain_pickle(_write(tmp_path, pickle.dumps(value)))


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'true'\ntR.",  # GLOBAL, REDUCE
        b"(S'true'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'true'\no.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",  # STACK_GLOBAL
        b"\x80\x02\x82\x01.",  # EXT1
        b"P123\n.",  # PERSID
        b"}}b.",  # BUILD
    ],
    ids=["global", "inst", "obj", "stack_global", "extension", "persistent", "build"],
)
def test_every_instruction_that_could_run_code_is_refused(tmp_path, data):
    with pytest.raises(UnsafePickleError, match="refused"):
        load_plain_pickle(_write(tmp_path, data))


@pytest.mark.parametrize("reader", [load_plain_pickle, load_pickled_npy])
@pytest.mark.parametrize("tuples", [b"\x85" * 200_000, b"\x94\x86" * 200_000])
def test_a_key_that_would_exhaust_the_stack_is_refused(tmp_path, reader, tuples):
    head = _npy_header() if reader is load_pickled_npy else b""
    path = _write(tmp_path, head + b"\x80\x04}N" + tuples + b"Ns.")
    with pytest.raises(UnsafePickleError, match="tuples more than 100 deep|IndexError"):
        reader(path)


def test_lists_that_unfold_without_end_are_refused(tmp_path):
    doubled = b"]\x94" + b"".join(b"]\x94(h%ch%ce" % (i, i) for i in range(60)) + b"."
    holds_itself = b"]\x94h\0a."
    for data in (doubled, holds_itself, b"]" * 300 + b"a" * 299 + b"."):
        with pytest.raises(UnsafePickleError, match="items|deep"):
            load_plain_pickle(_write(tmp_path, data))


def test_a_dictionary_may_have_tuples_as_keys_and_lists_may_be_shared(tmp_path):
    shared = [1, 2]
    value = {(1, (2, "a")): [shared] * 1000}
    assert load_plain_pickle(_write(tmp_path, pickle.dumps(value))) == value


@pytest.mark.parametrize("keep", [0, 1, 2, 10, -1])
def test_a_truncated_pickle_is_refused(tmp_path, keep):
    data = pickle.dumps(PLAIN)[:keep]
    with pytest.raises(UnsafePickleError, match=r"file\.pkl: no readable pickle"):
        load_plain_pickle(_write(tmp_path, data))


def test_a_memo_index_of_gigabytes_is_refused(tmp_path):
    path = _write(tmp_path, b"\x80\x02]r\xff\xff\xff\x7f.")
    with pytest.raises(UnsafePickleError, match="memo index"):
        load_plain_pickle(path)


def test_a_file_above_the_limit_is_refused_before_it_is_parsed(tmp_path):
    path = _write(tmp_path, pickle.dumps([0] * 100))
    with pytest.raises(UnsafePickleError, match="limit of 99"):
        load_plain_pickle(path, max_bytes=99)
    assert load_plain_pickle(path, max_bytes=path.stat().st_size) == [0] * 100


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_plain_pickle(tmp_path / "none.pkl")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_give_a_value_or_one_kind_of_error(tmp_path, data):
    whole = bytearray(pickle.dumps(PLAIN, data.draw(st.integers(0, 5))))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UnsafePickleError):
        load_plain_pickle(_write(tmp_path, bytes(whole)))


def _npy_header():
    file = io.BytesIO()
    np.save(file, np.array({}, dtype=object), allow_pickle=True)
    data = file.getvalue()
    return data[: data.index(b"\n") + 1]


def _npy(tmp_path, value):
    path = tmp_path / "file.npy"
    np.save(path, np.array(value, dtype=object), allow_pickle=True)
    return path


def test_a_dictionary_saved_by_numpy_comes_back(tmp_path):
    value = {
        "qimlist_0_imlist_3": np.array([[1, 2], [3, 4], [5, 6]]),
        "fortran": np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]),
        "empty": [],
        "list": [[1, 2], [3, 4.5]],
        "scalar": np.int32(7),
        "scalars": [np.float64(0.5), np.float32(0.25)],
        "text": "a/b.json",
        "words": np.array(["ab", "c"]),
        "small": np.array([1, 2], dtype=">u2"),
        "mixed": np.array([np.array([1, 2]), None], dtype=object),
    }
    found = load_pickled_npy(_npy(tmp_path, value))
    assert list(found) == list(value)
    for key in ("qimlist_0_imlist_3", "fortran", "words", "small"):
        np.testing.assert_array_equal(found[key], value[key])
        assert found[key].shape == value[key].shape
    assert found["empty"] == [] and found["list"] == value["list"] and found["text"] == "a/b.json"
    assert found["scalar"] == 7 and found["scalars"] == [0.5, 0.25]
    assert found["mixed"][0].tolist() == [1, 2] and found["mixed"][1] is None


@pytest.mark.parametrize("protocol", [2, 3])
def test_what_old_numpy_wrote_comes_back(tmp_path, protocol):
    value = {"1_2": np.array([[1, 2]]), "size": np.int64(9)}
    data = pickle.dumps(np.array(value, dtype=object), protocol)
    data = data.replace(b"numpy._core", b"numpy.core")  # as it was called before numpy 2
    found = load_pickled_npy(_write(tmp_path, _npy_header() + data, "file.npy"))
    assert found["1_2"].tolist() == [[1, 2]]
    assert found["size"] == 9


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: np.save(path, np.zeros(3)), "expected one dictionary, got an array"),
        (lambda path: np.save(path, np.array([{}, {}])), "expected one dictionary"),
        (lambda path: np.save(path, np.array([1], dtype=object)[0:1].reshape(())), "dictionary"),
        (lambda path: path.write_bytes(b"no numpy"), "no readable .npy file"),
        (lambda path: path.write_bytes(_npy_header() + b"\x80"), "no readable pickle"),
        (
            lambda path: np.save(path, np.array({"a": np.datetime64("2020-01-01")}, dtype=object)),
            "refused|no readable pickle",
        ),
    ],
)
def test_other_npy_files_are_refused(tmp_path, write, message):
    path = tmp_path / "file.npy"
    write(path)
    with pytest.raises(UnsafePickleError, match=message):
        load_pickled_npy(path)
