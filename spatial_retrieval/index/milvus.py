"""Search by Milvus, on this machine (Milvus Lite, a file) or on a server or cluster.

``milvus://HOST:PORT/COLLECTION`` is a server; ``milvus:///FOLDER/FILE.db/COLLECTION`` a file of
Milvus Lite. Only addresses that the caller gives are ever connected to: none is kept in an index.
Milvus (Wang et al. 2021) finds candidates, and their rows as it holds them are scored exactly.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from spatial_retrieval.index.exact import check_vectors, exact_scores
from spatial_retrieval.index.rows import Rows
from spatial_retrieval.ranking import Ranking

__all__ = ["MilvusIndex", "fill_milvus", "open_milvus"]

_BATCH = 1000  # rows sent or fetched at once
_MOST = 16_384  # hits that Milvus gives
_EXACT_UP_TO = 200_000  # rows when a collection is made
_QUERIES = 16  # asked together


class MilvusIndex:
    """A collection of M rows, each under its position.

    Args:
        client: connected.
        collection: its name.

    Raises:
        ValueError: if there is no such collection.
    """

    def __init__(self, client: Any, collection: str) -> None:
        if not client.has_collection(collection):
            raise ValueError(f"{collection}: no such collection; index with it first")
        client.load_collection(collection)
        fields = client.describe_collection(collection)["fields"]
        self.client, self.collection = client, collection
        self.dim = next(f["params"]["dim"] for f in fields if f["name"] == "row")
        self._count = _count(client, collection)

    def __len__(self) -> int:
        return self._count

    def __str__(self) -> str:
        return f"Milvus {self.collection}"

    def search(self, queries: np.ndarray, k: int) -> Ranking:
        """(Q, D) → the k best of each, or as many as there are.

        Raises:
            ValueError: if D does not fit, or ``k`` is below 1 or above 16,384.
        """
        queries = check_vectors(queries, self.dim, k)
        k = min(k, len(self))
        if k > _MOST:
            raise ValueError(f"expected k of at most {_MOST}, which Milvus gives, got {k}")
        found = []
        for start in range(0, len(queries), _QUERIES):
            group = queries[start : start + _QUERIES]
            hits = self.client.search(
                self.collection,
                data=group.tolist(),
                anns_field="row",
                limit=min(len(self), _MOST, max(2 * k, k + 16)),
                output_fields=["id"],
            )
            ids = [np.array([hit["id"] for hit in each], np.int64) for each in hits]
            found += [self._ranked(q, i, k) for q, i in zip(group, ids, strict=True)]
        k = min(len(ids) for ids, _ in found)  # an approximate index may find fewer
        ids, scores = (np.stack([each[i][:k] for each in found]) for i in (0, 1))
        return Ranking(ids, scores.astype(np.float32))

    def vectors(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        """Descriptors at some positions, (…,) → (…, D) float32.

        Raises:
            IndexError: if a position is not in [0, M).
        """
        ids = np.asarray(ids, dtype=np.int64)
        wanted = np.unique(ids).tolist()
        rows: dict[int, Any] = {}
        for start in range(0, len(wanted), _BATCH):
            part = wanted[start : start + _BATCH]
            got = self.client.get(self.collection, ids=part, output_fields=["id", "row"])
            rows |= {each["id"]: each["row"] for each in got}
        if len(rows) < len(wanted):
            raise IndexError(f"expected positions from 0 to {len(self) - 1}")
        found = np.array([rows[i] for i in ids.reshape(-1).tolist()], np.float32)
        return found.reshape(*ids.shape, self.dim)

    def _ranked(self, query: np.ndarray, ids: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores = exact_scores(query, self.vectors(ids))
        order = np.lexsort((ids, -scores))[:k]
        return ids[order], scores[order]


def open_milvus(address: str) -> MilvusIndex:
    """Connect to a collection.

    Raises:
        ValueError: if the address is wrong, or nothing replies there.
        ImportError: if pymilvus isn't installed.
    """
    client, collection = _connect(address)
    return MilvusIndex(client, collection)


def fill_milvus(address: str, rows: Rows) -> MilvusIndex:
    """Bring a collection up to date: rows that it lacks are added.

    Args:
        address: the collection is made if it isn't there.
        rows: (M, D); those that the collection holds must be the first of them.

    Raises:
        ValueError: as :func:`open_milvus`, or if the collection holds other rows.
    """
    client, collection = _connect(address)
    if not client.has_collection(collection):
        _create(client, collection, rows)
    index = MilvusIndex(client, collection)
    there = len(index)
    sample = np.unique(np.linspace(0, max(0, min(there, len(rows)) - 1), 16).astype(np.int64))
    same = index.dim == rows.shape[1] and there <= len(rows)
    if not same or (there and not np.allclose(index.vectors(sample), rows.take(sample))):
        raise ValueError(f"{address}: holds other rows; choose another collection")
    for start in range(there, len(rows), _BATCH):
        block = rows.take(np.arange(start, min(start + _BATCH, len(rows))))
        data = [{"id": start + i, "row": row.tolist()} for i, row in enumerate(block)]
        client.insert(collection, data)
    client.flush(collection)
    return MilvusIndex(client, collection)


def _create(client: Any, collection: str, rows: Rows) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("row", DataType.FLOAT_VECTOR, dim=rows.shape[1])
    parameters = client.prepare_index_params()
    kind = "FLAT" if len(rows) <= _EXACT_UP_TO else "AUTOINDEX"
    parameters.add_index("row", index_type=kind, metric_type="IP")
    client.create_collection(collection, schema=schema, index_params=parameters)


def _count(client: Any, collection: str) -> int:
    return int(client.query(collection, filter="", output_fields=["count(*)"])[0]["count(*)"])


def _connect(address: str) -> tuple[Any, str]:
    """A client, and the collection's name."""
    parts = urlsplit(address)
    place, _, collection = parts.path.rpartition("/")
    if parts.scheme != "milvus" or not collection or not (parts.netloc or place.endswith(".db")):
        raise ValueError(
            "expected milvus://HOST:PORT/COLLECTION or milvus:///FOLDER/FILE.db/COLLECTION, "
            f"got {address!r}"
        )
    try:
        from pymilvus import MilvusClient
        from pymilvus.exceptions import MilvusException
    except ImportError as error:
        raise ImportError(f"Milvus: {error}; pip install spatial-retrieval[milvus]") from error
    try:
        return MilvusClient(f"http://{parts.netloc}" if parts.netloc else place), collection
    except MilvusException as error:
        raise ValueError(f"{address}: nothing replies there ({error})") from error
