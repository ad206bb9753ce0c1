"""Arithmetic of embedding and indexing many items, with constants measured by other benchmarks of this repository.

Shapes: `N` items, `M` modalities, `D` dimension.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = [
    "SIZES",
    "Constants",
    "Option",
    "constants",
    "export_bytes",
    "index_bytes",
    "options",
    "qdrant_bytes",
    "store_bytes",
]

SIZES = {"float16": 2, "float32": 4}
# Faiss: 32-bit numbers of 2 x 32 neighbors in the bottom layer.
LINKS = 4 * 2 * 32
# Bytes of the code of a product quantizer per dimension, as in `benchmarks.search` (a byte for 8 dimensions).
CODES = 1 / 8


class Constants(NamedTuple):
    """Measured constants; seconds are of one thread.

    Attributes:
        embed_share: speed of `embed` divided by that of its encoder alone.
        prepared: images (320 x 240) that a core decodes and prepares in a second.
        cell: pickled bytes of a path that a Ray actor receives.
        catalog: bytes of an item of an index besides its rows: keys and labels in SQLite, and derived numbers.
        add: seconds to add an item with 1.7 rows of 256 dimensions.
        memory: largest resident bytes of the benchmark that adds and compacts such items, per item.
        scan: bytes of rows that the search for one query reads in a second.
        batch: flops per second of the search for 100 queries.
        links: bytes of an item in an HNSW file besides its vector.
        graph: seconds to add an item to a graph of `graph_items`.
        graph_query: seconds of a query of that graph.
        pq: bytes of an item in an IVF-PQ index besides its vector and the text columns of the table.
        flat_query: seconds of a query of a table of LanceDB without an index, of `graph_items` rows.
    """

    embed_share: float
    prepared: float
    cell: float
    catalog: float
    add: float
    memory: float
    scan: float
    batch: float
    links: float
    graph: float
    graph_items: int
    graph_query: float
    pq: float
    flat_query: float


class Option(NamedTuple):
    """A way to search N vectors.

    Attributes:
        memory, disk: bytes of an item.
        build: seconds of one thread for all items.
        query: seconds of one thread for a query, or None if it was not measured at this size.
    """

    name: str
    memory: float
    disk: float
    build: float | None
    query: float | None


def constants(results: Mapping[str, Any]) -> Constants:
    """Read the constants from `embed.json`, `scale.json`, `index_storage.json` and `search.json`, by name."""
    embed, here = results["embed"], results["scale"]["embedding"]
    storage = results["index_storage"]["seconds_of_one_thread"][-1]
    search = results["search"]
    queries, rows, dim = search["seconds_per_query"], search["rows"], search["dim"]
    vector = 4 * dim
    return Constants(
        embed_share=min(embed[case]["speed of embed / speed of the encoder alone"] for case in ("images", "clips")),
        prepared=here["prepared images per processor second"],
        cell=here["pickled bytes per cell"],
        # 70 % of the items also have a second row.
        catalog=(storage["disk / present"] - 1) * 1.7 * 4 * storage["dim"],
        add=storage["add"]["cpu"] / 100_000,
        memory=storage["peak memory, MB"] * 2**20 / storage["items"],
        scan=rows * vector / queries["index"]["one"]["cpu"],
        batch=2 * rows * dim / queries["index"]["batch"]["cpu"],
        links=queries["faiss-hnsw"]["bytes_on_disk"] / rows - vector,
        graph=queries["faiss-hnsw"]["build"]["cpu"] / rows,
        graph_items=rows,
        graph_query=queries["faiss-hnsw"]["one"]["cpu"],
        pq=(queries["lancedb-ivf-pq"]["bytes_on_disk"] - queries["lancedb-flat"]["bytes_on_disk"]) / rows,
        flat_query=queries["lancedb-flat"]["one"]["wall"],
    )


def store_bytes(modalities: int, dim: int, dtype: str) -> float:
    """Features, presence, ids and groups of an item of a store; names and thumbnails come on top."""
    return modalities * (dim * SIZES[dtype] + 1) + 2 * 8


def index_bytes(modalities: int, dim: int, catalog: float) -> float:
    """An item of an index with all modalities: float32 rows and the catalog."""
    return modalities * dim * 4 + catalog


def qdrant_bytes(modalities: int, dim: int) -> float:
    """The rule of Qdrant's page on capacity (4 bytes per dimension, times 1.5), for `any` and each modality."""
    return (1 + modalities) * dim * 4 * 1.5


def export_bytes(modalities: int, dim: int) -> float:
    """Vectors of an exported item: that of `any`, and one for each modality."""
    return (1 + modalities) * dim * 4


def options(items: float, dim: int, c: Constants) -> list[Option]:
    """Ways to search one vector of each item. The time of a graph grows with the logarithm of its size."""
    vector = 4.0 * dim
    deeper = math.log(items) / math.log(c.graph_items)
    wider = dim / 256
    return [
        Option("exact, one query", vector, vector, None, items * vector / c.scan),
        Option("exact, 100 queries at once", vector, vector, None, 2 * items * dim / c.batch),
        Option(
            "HNSW, 32 neighbors",
            vector + c.links,
            vector + c.links,
            items * c.graph * deeper * wider,
            c.graph_query * deeper * wider,
        ),
        Option("IVF-PQ, vectors on disk", CODES * dim + 8, vector + CODES * dim + 8, None, None),
    ]
