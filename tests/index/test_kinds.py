"""One suite for every way of searching; exact search is the oracle."""

from dataclasses import replace

import numpy as np
import pytest

from spatial_retrieval.index import DescriptorIndex, Index
from spatial_retrieval.index.approximate import (
    build_approximate,
    load_approximate,
    save_approximate,
)
from spatial_retrieval.index.exact import exact_search
from spatial_retrieval.index.measure import choose, held_out, measure, set_engine
from spatial_retrieval.index.milvus import fill_milvus, open_milvus
from spatial_retrieval.index.rows import Rows

KINDS = [
    "milvus",
    "exact",
    "Flat",
    "SQfp16",
    "HNSW32",
    "IVF16,Flat:nprobe=8",
    "IVF16,PQ8x4fs:nprobe=16",
]


def clusters(m, d=32, seed=0):
    """Rows that have neighbours: a mixture of m / 20 directions."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(2, m // 20), d))
    x = centres[rng.integers(0, len(centres), m)] + 0.3 * rng.standard_normal((m, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


ROWS = clusters(2000)


@pytest.fixture(scope="module", params=KINDS)
def index(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    DescriptorIndex.build(ROWS, [str(i) for i in range(len(ROWS))]).save(folder)
    if request.param == "milvus":
        pytest.importorskip("milvus_lite")
        engine = fill_milvus(f"milvus://{folder}/lite.db/rows", Rows([ROWS]))
        yield replace(DescriptorIndex.load(folder), engine=engine)
        engine.client.close()
        return
    set_engine(folder, request.param)
    yield DescriptorIndex.load(folder)


def test_it_is_an_index(index):
    assert isinstance(index, Index) and len(index) == 2000
    assert np.array_equal(index.vectors([5, 1]), ROWS[[5, 1]])


def test_it_finds_what_exact_search_finds(index):
    queries = held_out(Rows([ROWS]), 50, seed=3)
    exact, found = exact_search(Rows([ROWS]), queries, 10), index.search(queries, 10)
    same = [len(set(a) & set(b)) for a, b in zip(exact.ids, found.ids, strict=True)]
    assert np.mean(same) >= 9.5
    assert np.array_equal(exact.ids[:, 0], found.ids[:, 0])


def test_its_scores_are_the_exact_ones_in_falling_order(index):
    queries = held_out(Rows([ROWS]), 5, seed=4)
    found = index.search(queries, 30)
    expected = np.einsum("qd,qkd->qk", queries.astype(float), ROWS[found.ids].astype(float))
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)
    assert (np.diff(found.scores, axis=1) <= 0).all()


def test_more_hits_than_there_are_rows(index):
    assert sorted(index.search(ROWS[:1], 3000).ids[0]) == list(range(2000))


def test_bad_calls_are_refused(index):
    with pytest.raises(ValueError, match=r"expected queries \(Q, 32\)"):
        index.search(ROWS[:1, :8], 1)
    with pytest.raises(ValueError, match="k of at least 1"):
        index.search(ROWS[:1], 0)


def test_rows_that_come_later_are_found_too(tmp_path):
    built = build_approximate(Rows([ROWS[:1500]]), "IVF16,Flat", parameters="nprobe=16")
    save_approximate(built, tmp_path)
    found = load_approximate(tmp_path, Rows([ROWS[:1500], ROWS[1500:]]))
    queries = ROWS[1400:1600]
    expected = exact_search(Rows([ROWS]), queries, 5)
    assert np.array_equal(found.search(queries, 5).ids, expected.ids)
    assert load_approximate(tmp_path, Rows([ROWS[1:]])) is None  # other rows
    assert load_approximate(tmp_path, Rows([ROWS[:100]])) is None  # fewer rows


def test_lists_that_are_not_probed_leave_gaps_that_exact_search_fills():
    built = build_approximate(Rows([ROWS]), "IVF256,Flat", parameters="nprobe=1")
    assert built.search(ROWS[:3], 500).k == 500


def test_damage_is_noticed(tmp_path):
    DescriptorIndex.build(ROWS, [str(i) for i in range(len(ROWS))]).save(tmp_path)
    set_engine(tmp_path, "SQfp16")
    path = next(tmp_path.glob("approximate-*"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="damaged index.*sha256 differs"):
        DescriptorIndex.load(tmp_path, verify=True)
    path.write_bytes(whole[:100])
    with pytest.raises(ValueError, match="damaged index.*delete this file to search exactly"):
        DescriptorIndex.load(tmp_path)


def test_kinds_are_kept_changed_and_built_again(tmp_path):
    names = [str(i) for i in range(len(ROWS))]
    DescriptorIndex.build(ROWS[:1000], names[:1000]).save(tmp_path)
    set_engine(tmp_path, "IVF16,Flat:nprobe=4")
    DescriptorIndex.build(ROWS[:1050], names[:1050]).save(tmp_path)
    set_engine(tmp_path, "keep")
    assert DescriptorIndex.load(tmp_path).engine.count == 1000
    DescriptorIndex.build(ROWS, names).save(tmp_path)
    set_engine(tmp_path, "keep")
    engine = DescriptorIndex.load(tmp_path).engine
    assert (engine.count, engine.factory, engine.parameters) == (2000, "IVF16,Flat", "nprobe=4")
    set_engine(tmp_path, "exact")
    assert DescriptorIndex.load(tmp_path).engine is None
    assert not list(tmp_path.glob("approximate*"))
    with pytest.raises(ValueError, match="expected a FAISS factory string, got 'magic'"):
        set_engine(tmp_path, "magic")


def test_auto_is_exact_for_few_and_good_enough_for_many(monkeypatch):
    assert choose(Rows([ROWS])) is None
    monkeypatch.setattr("spatial_retrieval.index.measure.EXACT_UP_TO", 1000)
    found = choose(Rows([ROWS]))
    assert found.factory.startswith("IVF")
    assert measure(found, Rows([ROWS]), held_out(Rows([ROWS]), seed=7)).recall[100] >= 0.93


def test_measuring_counts_what_is_missed():
    class Half:
        def search(self, queries, k):
            found = exact_search(Rows([ROWS]), queries, 2 * k)
            return type(found)(found.ids[:, ::2], found.scores[:, ::2])

    found = measure(Half(), Rows([ROWS[:200]]), ROWS[:10], ks=(1, 10, 1000))
    assert set(found.recall) == {1, 10} and found.recall[1] < 1.01 and found.recall[10] <= 0.5
    assert found.milliseconds > 0 and found.exact_milliseconds > 0


@pytest.fixture
def lite(tmp_path):
    pytest.importorskip("milvus_lite")
    return f"milvus://{tmp_path}/lite.db/rows"


def test_a_milvus_collection_is_filled_opened_and_added_to(lite):
    first = fill_milvus(lite, Rows([ROWS[:300]]))
    assert len(first) == 300
    both = fill_milvus(lite, Rows([ROWS[:400]]))
    assert len(both) == 400 and isinstance(both, Index)
    found = open_milvus(lite)
    assert np.array_equal(found.vectors([[399], [0]]), ROWS[[[399], [0]]])
    expected = exact_search(Rows([ROWS[:400]]), ROWS[:20], 5)
    assert np.array_equal(found.search(ROWS[:20], 5).ids, expected.ids)
    with pytest.raises(IndexError, match="from 0 to 399"):
        found.vectors([400])
    for other in (ROWS[:300], ROWS[::-1], ROWS[:, :8]):
        with pytest.raises(ValueError, match="holds other rows"):
            fill_milvus(lite, Rows([other]))
    with pytest.raises(ValueError, match="other: no such collection"):
        open_milvus(lite.replace("/rows", "/other"))
    found.client.close()


def test_milvus_gives_so_many_hits(lite):
    index = fill_milvus(lite, Rows([ROWS[:50]]))
    index._count = 20_000
    with pytest.raises(ValueError, match="k of at most 16384"):
        index.search(ROWS[:1], 17_000)
    index.client.close()


@pytest.mark.parametrize(
    "address", ["milvus://", "milvus://host:1", "http://host/a", "milvus:///a/b"]
)
def test_wrong_milvus_addresses_are_refused(address):
    with pytest.raises(ValueError, match="expected milvus://HOST:PORT/COLLECTION"):
        open_milvus(address)
