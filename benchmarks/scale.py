"""What an index of a million vectors costs: time, bytes, memory, recall.

    python benchmarks/scale.py [--rows 100000] [--dim 512] [--kinds exact auto HNSW32 …]

Vectors are drawn from a mixture, one direction for each 20 of them, so that neighbours exist;
queries are rows moved by 0.3, other than those with which parameters were chosen. Plain FAISS does
the same next to it. Memory is the peak of the resident set above what the process had before, in a
process of its own for each measurement; pages of the memory map count although the system may take
them back at any time.
"""

import argparse
import multiprocessing
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import numpy as np

_BLOCK = 1 << 15
_QUERIES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--folder", type=Path, help="where the index lies; default: temporary")
    parser.add_argument("--kinds", nargs="*", default=["exact", "auto"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        measure_all(Path(folder), args.rows, args.dim, args.kinds)


def measure_all(folder: Path, rows: int, dim: int, kinds: list[str]) -> dict[str, dict]:
    """Print and return what each step costs."""
    found = {"write": _alone(_write, folder, rows, dim)}
    _show(f"write {rows} × {dim}", found["write"])
    found["open"] = _alone(_open, folder)
    _show("open", found["open"])
    for kind in kinds:
        found[f"build {kind}"] = _alone(_build, folder, kind)
        _show(f"build {kind}", found[f"build {kind}"])
        found[kind] = _alone(_search, folder)
        _show(f"search {kind}", found[kind])
    if rows <= 2_000_000:
        found["faiss"] = _alone(_plain_faiss, folder)
        _show("plain FAISS, flat", found["faiss"])
    found["add"] = _alone(_add, folder, 1000)
    _show("add 1000", found["add"])
    return found


def mixture(rows: int, dim: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Blocks of unit rows (≤ 32768, dim) that have neighbours."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(2, rows // 20), dim), dtype=np.float32)
    for start in range(0, rows, _BLOCK):
        count = min(_BLOCK, rows - start)
        block = centres[rng.integers(0, len(centres), count)]
        block = block + 0.7 * rng.standard_normal((count, dim), dtype=np.float32)
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def _write(folder: Path, rows: int, dim: int) -> dict:
    from spatial_retrieval.features.store import Blocks
    from spatial_retrieval.index.disk import add_segment, commit, selected

    start = perf_counter()
    names = [f"{i // 1000:05d}/{i:08d}.jpg" for i in range(rows)]
    blocks = Blocks(np.float32, (rows, dim), mixture(rows, dim))
    segment = add_segment(folder, blocks, names, names)
    commit(folder, selected([segment], np.arange(rows), {}, {}))
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"seconds": perf_counter() - start, "bytes a vector": size / rows}


def _open(folder: Path) -> dict:
    from spatial_retrieval.index import DescriptorIndex

    start = perf_counter()
    index = DescriptorIndex.load(folder)
    return {"milliseconds": 1000 * (perf_counter() - start), "last": index.names[-1]}


def _build(folder: Path, kind: str) -> dict:
    from spatial_retrieval.index.measure import set_engine

    start = perf_counter()
    set_engine(folder, kind)
    size = sum(path.stat().st_size for path in folder.glob("approximate*"))
    return {"seconds": perf_counter() - start, "megabytes": size / 1e6}


def _search(folder: Path) -> dict:
    from spatial_retrieval.index import DescriptorIndex
    from spatial_retrieval.index.measure import held_out, measure

    index = DescriptorIndex.load(folder)
    queries = held_out(index.rows, _QUERIES, seed=1)
    index.search(queries[:1], 1)
    found = measure(index, index.rows, queries)
    how = "" if index.engine is None else str(index.engine)
    recall = {f"recall@{k}": value for k, value in found.recall.items()}
    return {"milliseconds": found.milliseconds, **recall, "by": how}


def _plain_faiss(folder: Path) -> dict:
    import faiss

    from spatial_retrieval.index import DescriptorIndex
    from spatial_retrieval.index.measure import held_out

    rows = DescriptorIndex.load(folder).rows
    flat = faiss.IndexFlatIP(rows.shape[1])
    start = perf_counter()
    flat.add(np.asarray(rows))
    build, queries = perf_counter() - start, held_out(rows, _QUERIES, seed=1)
    start = perf_counter()
    for query in queries:
        flat.search(query[None], 100)
    return {"seconds": build, "milliseconds": 1000 * (perf_counter() - start) / len(queries)}


def _add(folder: Path, count: int) -> dict:
    from spatial_retrieval.index.disk import add_segment, commit, read_index, selected

    (block,) = mixture(count, read_index(folder).rows.shape[1], seed=2)
    start = perf_counter()
    old = read_index(folder)
    names = [f"new/{i:08d}.jpg" for i in range(count)]
    segments = [*old.segments, add_segment(folder, block, names, names)]
    commit(folder, selected(segments, np.arange(len(old.rows) + count), old.info, {}))
    return {"seconds": perf_counter() - start, "segments": len(read_index(folder).segments)}


def _alone(function: Callable[..., dict], *args: object) -> dict:
    """Run a step in a process of its own, and add its peak memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_with_memory, (function, args))


def _with_memory(function: Callable[..., dict], args: tuple) -> dict:
    import spatial_retrieval.index.measure  # noqa: F401 (its libraries don't count)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = function(*args)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**found, "MB more": (after - before) / 1024}


def _show(step: str, found: dict) -> None:
    texts = [f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in found.items()]
    print(f"{step:28s} {' · '.join(texts)}", flush=True)


if __name__ == "__main__":
    main()
