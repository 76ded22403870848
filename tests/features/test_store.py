import json

import numpy as np
import pytest
from safetensors import safe_open

from spatial_retrieval.features.columns import Strings, pack_strings
from spatial_retrieval.features.store import Blocks, ShardError, ShardStore, open_shard, write_shard

ROWS = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)


@pytest.fixture
def shard(tmp_path):
    arrays = {"rows": ROWS, "bytes": np.arange(3, dtype=np.uint8), "ends": np.array([7, 9])}
    write_shard(tmp_path / "a.safetensors", arrays, {"names": ["\udcff", "ä"]})
    return tmp_path / "a.safetensors"


def test_a_shard_is_a_safetensors_file(shard):
    with safe_open(shard, "np") as file:
        assert sorted(file.keys()) == ["bytes", "ends", "rows"]
        assert np.array_equal(file.get_tensor("rows"), ROWS)
        assert np.array_equal(file.get_tensor("ends"), [7, 9])


def test_what_is_written_is_mapped_read_only(shard):
    found = open_shard(shard).verify()
    assert np.array_equal(found.arrays["rows"], ROWS) and found.arrays["bytes"].tolist() == [
        0,
        1,
        2,
    ]
    assert found.facts == {"names": ["\udcff", "ä"]}
    with pytest.raises(ValueError, match="read-only"):
        found.arrays["rows"][0] = 0


def test_blocks_give_the_same_file_as_the_whole_array(tmp_path):
    blocks = Blocks(np.float32, ROWS.shape, (ROWS[i : i + 3] for i in range(0, 10, 3)))
    assert write_shard(tmp_path / "b", {"rows": blocks}) == write_shard(
        tmp_path / "w", {"rows": ROWS}
    )
    assert (tmp_path / "b").read_bytes() == (tmp_path / "w").read_bytes()
    short = Blocks(np.float32, ROWS.shape, [ROWS[:3]])
    with pytest.raises(ValueError, match="expected 160 bytes, got 48"):
        write_shard(tmp_path / "s", {"rows": short})
    assert not (tmp_path / "s").exists()


def test_every_changed_byte_is_noticed(shard):
    whole = shard.read_bytes()
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        shard.write_bytes(damaged)
        with pytest.raises(ShardError, match=r"a\.safetensors: damaged"):
            open_shard(shard).verify()


@pytest.mark.parametrize("length", [0, 7, 8, 50, 400])
def test_a_file_cut_short_is_damaged_already_when_it_is_opened(shard, length):
    shard.write_bytes(shard.read_bytes()[:length])
    with pytest.raises(ShardError, match="damaged"):
        open_shard(shard)


def test_a_header_cannot_point_outside_its_file(tmp_path):
    for entry in (
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "C99", "shape": [1], "data_offsets": [0, 4]},
        [],
    ):
        header = json.dumps({"__metadata__": {"sha256": "", "facts": "{}"}, "rows": entry}).encode()
        (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
        with pytest.raises(ShardError, match="damaged"):
            open_shard(tmp_path / "x")
    with pytest.raises(ShardError, match="missing"):
        open_shard(tmp_path / "y")


def test_a_type_that_cannot_be_kept_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a type among float16.*got complex64"):
        write_shard(tmp_path / "x", {"rows": ROWS.astype(np.complex64)})


def test_a_store_finds_by_key_and_settings(tmp_path):
    store = ShardStore(tmp_path, {"size": 1})
    store.put("a", {"rows": ROWS}, {"n": 1})
    store.put(["b", 2], {"rows": ROWS[:0]})
    assert np.array_equal(store.get("a").arrays["rows"], ROWS) and store.get("a").facts == {"n": 1}
    assert store.get(["b", 2]).arrays["rows"].shape == (0, 4)
    assert store.get("c") is None and len(list(store)) == 2
    assert ShardStore(tmp_path, {"size": 2}).get("a") is None
    assert ShardStore(tmp_path, {"size": 1}).get("a") is not None
    store.put("a", {"rows": ROWS[:2]})
    assert len(store.get("a").arrays["rows"]) == 2


def test_a_damaged_shard_counts_as_none_and_the_log_says_so(tmp_path, caplog):
    store = ShardStore(tmp_path, {})
    path = store.put("a", {"rows": ROWS}).path
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert store.get("a") is None and list(store) == []
    assert "made again" in caplog.text


NAMES = ["a.jpg", "", "bücher/日本.png", "\udcff.jpg", "x" * 255]


def test_strings_come_back():
    found = Strings([pack_strings(NAMES[:2]), pack_strings([]), pack_strings(NAMES[2:])])
    assert found == NAMES and list(found) == NAMES and len(found) == 5
    assert [found[i] for i in range(5)] == NAMES and found[-1] == NAMES[-1]
    assert found[1:3] == tuple(NAMES[1:3]) and found.index("\udcff.jpg") == 3
    assert found != NAMES[:4] and found != [*NAMES[:4], "y"] and found != "abcde"
    with pytest.raises(IndexError, match="below 5"):
        found[5]


def test_chosen_strings():
    found = Strings([pack_strings(NAMES[:2]), pack_strings(NAMES[2:])], np.array([4, 0]))
    assert found == [NAMES[4], NAMES[0]] and list(found) == [NAMES[4], NAMES[0]] and len(found) == 2


def test_bytes_that_are_no_string_say_what_is_wrong():
    data, ends = pack_strings(["ab"])
    with pytest.raises(ValueError, match="expected a name, got.*damaged"):
        Strings([(data | 0x80, ends)])[0]


def test_strings_must_fill_their_bytes():
    data, ends = pack_strings(NAMES)
    with pytest.raises(ValueError, match="fill their bytes"):
        Strings([(data[:-1], ends)])
