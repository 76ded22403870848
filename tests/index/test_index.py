import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_retrieval import DescriptorIndex
from spatial_retrieval.index import Index, disk, exact
from spatial_retrieval.index.exact import exact_search
from spatial_retrieval.index.rows import Rows


def rows(m, d=8, seed=0):
    x = np.random.default_rng(seed).standard_normal((m, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def index(m=20, **info):
    return DescriptorIndex.build(rows(m), [f"{i}.jpg" for i in range(m)], info)


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 5))
def test_search_equals_sorting_all_inner_products(m, k, seed):
    database, queries = rows(m, seed=seed), rows(3, seed=seed + 100)
    found = DescriptorIndex.build(database, [str(i) for i in range(m)]).search(queries, k)
    scores = queries @ database.T
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    assert found.ids.shape == (3, min(k, m))
    assert np.array_equal(found.ids, expected)
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, expected, 1), atol=1e-6)


@pytest.mark.parametrize("copies", [3, 40_000])
def test_the_cut_off_keeps_the_lowest_of_equal_scores(copies):
    one, other = rows(2, d=48, seed=3)
    # odd places, where a matrix product may round otherwise; and, of many, over several blocks
    database = np.concatenate([rows(37, d=48), np.repeat(one[None], copies, axis=0), other[None]])
    found = exact_search(Rows([database]), np.stack([one, other]), 3)
    assert found.ids[0].tolist() == [37, 38, 39] and found.ids[1, 0] == 37 + copies


def test_what_rounding_may_have_put_below_the_cut_off_is_scored_again():
    scores = np.array([1 - 2e-7, 1.0, 0.5])
    assert exact._candidates(scores, 1, 1e-6, -np.inf).tolist() == [0, 1]
    assert exact._candidates(scores, 5, 1e-6, 0.9).tolist() == [0, 1]
    ids, _ = exact._first(np.arange(40)[::-1], np.ones(40), 3)
    assert ids.tolist() == [0, 1, 2]


def test_rows_of_several_segments_are_one_database():
    whole, queries = rows(50), rows(4, seed=9)
    parts = Rows([whole[:7], whole[7:8], whole[8:]])
    expected = exact_search(Rows([whole]), queries, 20)
    assert np.array_equal(exact_search(parts, queries, 20).ids, expected.ids)
    assert np.array_equal(np.asarray(parts), whole) and np.array_equal(parts[5:9], whole[5:9])
    chosen = np.array([49, 3, 7])
    some = Rows([whole[:7], whole[7:]], chosen)
    assert np.array_equal(np.asarray(some), whole[chosen]) and some.shape == (3, 8)
    ranked = np.argsort(-queries @ whole[chosen].T, axis=1, kind="stable")
    assert np.array_equal(exact_search(some, queries, 3).ids, ranked)


def test_more_queries_than_are_scored_together(monkeypatch):
    monkeypatch.setattr("spatial_retrieval.index.exact._QUERIES", 3)
    monkeypatch.setattr("spatial_retrieval.index.exact._BLOCK", 4)
    found = exact_search(Rows([rows(20)]), rows(8, seed=5), 6)
    assert np.array_equal(
        found.ids, np.argsort(-rows(8, seed=5) @ rows(20).T, kind="stable")[:, :6]
    )


def test_a_row_that_is_no_number_is_an_error_not_a_gap():
    bad = rows(3)
    bad[1] = np.nan
    with pytest.raises(ValueError, match="expected finite queries and rows"):
        exact_search(Rows([bad]), rows(1), 3)


def test_equal_scores_come_in_database_order():
    same = np.repeat(rows(1), 6, axis=0)
    assert DescriptorIndex.build(same, list("abcdef")).search(rows(1), 6).ids[0].tolist() == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]


def test_vectors_gives_the_rows_back():
    found = index()
    assert isinstance(found, Index)
    assert np.array_equal(found.vectors([3, 1]), rows(20)[[3, 1]])
    assert np.array_equal(found.vectors([[3], [1]]), rows(20)[[[3], [1]]])
    for wrong in (-1, 20):
        with pytest.raises(IndexError, match="from 0 to 19"):
            found.vectors([wrong])


def test_what_is_saved_is_loaded(tmp_path):
    index(model="m", size=480).save(tmp_path / "a")
    again = DescriptorIndex.load(tmp_path / "a")
    assert again.names == index().names and again.info == {"model": "m", "size": 480}
    assert np.array_equal(again.descriptors, rows(20))


def test_saving_again_leaves_no_old_files(tmp_path):
    index(20).save(tmp_path)
    index(5).save(tmp_path)
    assert len(DescriptorIndex.load(tmp_path)) == 5
    assert len(list(tmp_path.iterdir())) == 3


def test_every_flipped_byte_is_noticed(tmp_path):
    index().save(tmp_path)
    for path in tmp_path.glob("segment-*"):
        whole = path.read_bytes()
        for position in (0, len(whole) // 2, len(whole) - 1):
            damaged = bytearray(whole)
            damaged[position] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match="damaged index"):
                DescriptorIndex.load(tmp_path)
        path.write_bytes(whole)
    assert len(DescriptorIndex.load(tmp_path)) == 20


def test_a_missing_or_foreign_index_is_an_error_that_says_so(tmp_path):
    with pytest.raises(ValueError, match="no index here"):
        DescriptorIndex.load(tmp_path)
    index().save(tmp_path)
    manifest = tmp_path / "manifest.json"
    whole = json.loads(manifest.read_text())
    manifest.write_text("{")
    with pytest.raises(ValueError, match="damaged index"):
        DescriptorIndex.load(tmp_path)
    manifest.write_text(json.dumps(whole | {"format": 99}))
    with pytest.raises(ValueError, match="another version"):
        DescriptorIndex.load(tmp_path)
    for damage in ({"segments": {}}, {"segments": [{}]}, {"count": 7}, {"dim": 7}, {"chosen": 3}):
        manifest.write_text(json.dumps(whole | damage))
        with pytest.raises(ValueError, match="damaged index"):
            DescriptorIndex.load(tmp_path)
    manifest.write_text(json.dumps(whole))
    next(tmp_path.glob("segment-*")).unlink()
    with pytest.raises(ValueError, match="damaged index.*missing"):
        DescriptorIndex.load(tmp_path)


def test_a_manifest_cannot_point_outside_its_folder(tmp_path):
    index().save(tmp_path / "a")
    index().save(tmp_path / "b")
    manifest = tmp_path / "a" / "manifest.json"
    whole = json.loads(manifest.read_text())
    (segment,) = whole["segments"]
    segment["file"] = f"../b/{segment['file']}"
    (tmp_path / "a" / Path(segment["file"]).name).unlink()
    manifest.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match="damaged index.*missing"):
        DescriptorIndex.load(tmp_path / "a")


def test_a_save_that_fails_leaves_the_old_index_whole(tmp_path, monkeypatch):
    index(20).save(tmp_path)

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        index(5).save(tmp_path)
    monkeypatch.undo()
    assert len(DescriptorIndex.load(tmp_path)) == 20
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(
    ("descriptors", "names", "message"),
    [
        (rows(3), ["a", "b"], "for 2"),
        (np.zeros((0, 4)), [], "M ≥ 1"),
        (rows(2) * 2, ["a", "b"], "expected unit rows"),
        (rows(2) * np.nan, ["a", "b"], "expected unit rows"),
        (rows(2), ["a", "a"], "each name once"),
    ],
)
def test_what_cannot_be_indexed_is_refused(descriptors, names, message):
    with pytest.raises(ValueError, match=message):
        DescriptorIndex.build(descriptors, names)


def test_a_query_of_another_model_is_refused():
    with pytest.raises(ValueError, match=r"expected queries \(Q, 8\).*another model"):
        index().search(rows(1, d=4))
    with pytest.raises(ValueError, match="k of at least 1"):
        index().search(rows(1), k=0)


def test_an_index_of_the_first_format_is_read_and_saved_in_todays(tmp_path):
    with (tmp_path / "descriptors-x.npy").open("wb") as file:
        np.save(file, rows(3))
    (tmp_path / "names-x.json").write_text('["a", "b", "c"]')
    files = {
        key: {"file": name, "sha256": hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}
        for key, name in (("descriptors", "descriptors-x.npy"), ("names", "names-x.json"))
    }
    info = {"model": "m", "stamps": {"a": "1-2"}, "failed": {"d": "torn"}}
    manifest = {"format": 1, "count": 3, "dim": 8, "files": files, "info": info}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    found = DescriptorIndex.load(tmp_path)
    assert np.array_equal(found.descriptors, rows(3)) and list(found.names) == ["a", "b", "c"]
    assert found.info == {"model": "m"}
    found.save(tmp_path)
    assert not list(tmp_path.glob("*.npy"))
    assert np.array_equal(DescriptorIndex.load(tmp_path).descriptors, rows(3))
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="damaged index.*descriptors is missing"):
        DescriptorIndex.load(tmp_path)


def test_a_large_index_is_checked_byte_by_byte_only_on_demand(tmp_path, monkeypatch):
    index().save(tmp_path)
    monkeypatch.setattr("spatial_retrieval.index.disk._CHECKED", 0)
    path = next(tmp_path.glob("segment-*"))
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    assert len(DescriptorIndex.load(tmp_path)) == 20
    with pytest.raises(ValueError, match="damaged index"):
        DescriptorIndex.load(tmp_path, verify=True)


def test_a_reader_during_an_update_gets_the_old_or_the_new_one(tmp_path, monkeypatch):
    index(20).save(tmp_path)
    opened = disk.open_shard

    def updated_in_between(path):
        monkeypatch.setattr(disk, "open_shard", opened)
        index(5).save(tmp_path)
        return opened(path)

    monkeypatch.setattr(disk, "open_shard", updated_in_between)
    assert len(DescriptorIndex.load(tmp_path)) == 5
