"""Tables of embedding and indexing many items."""

from benchmarks.scale.billion import (
    SIZES,
    Constants,
    export_bytes,
    index_bytes,
    options,
    qdrant_bytes,
    store_bytes,
)
from benchmarks.scale.encoders import EFFICIENCY, GPU, IMAGE
from benchmarks.scale.numbers import duration, number
from research.pages import Section, Table

__all__ = ["billion_sections"]

BILLION, SMALL = 10**9, 10**7
M, PART = 3, 1024


def billion_sections(c: Constants) -> list[Section]:
    return [
        Section("constants", "Constants", [_constants(c)]),
        Section("embedding", "Embedding", [_embedding(c)]),
        Section("storage", "Storage", [_storage(c)]),
        Section("search", "Search", [_search(c)]),
    ]


def _constants(c: Constants) -> Table:
    rows = [
        ["speed of `embed` / speed of its encoder alone", f"{c.embed_share:.2f}", "`embed.json`, lower of two media"],
        ["images of 320 x 240 pixels decoded and prepared", f"{number(c.prepared)} / s", "`scale.json`, this machine"],
        ["bytes of a path that each Ray actor receives", number(c.cell), "`scale.json`, pickled"],
        ["bytes of an item of our index besides its rows", number(c.catalog), "`index_storage.json`, 1,000,000 items"],
        ["time to add an item to our index", f"{number(1e6 * c.add)} µs", "`index_storage.json`, 1.7 rows, D = 256"],
        ["peak memory of our index per item", f"{number(c.memory)} bytes", "`index_storage.json`, 1.7 rows, D = 256"],
        ["rows read by exact search, one query", f"{number(c.scan / 1e9)} GB / s", "`search.json`, `index`"],
        ["exact search, 100 queries at once", f"{number(c.batch / 1e9)} GFLOP / s", "`search.json`, `index`"],
        ["bytes of an item in a graph besides its vector", number(c.links), "`search.json`, `faiss-hnsw`"],
        ["time to add an item to a graph of 140,000", f"{number(1e6 * c.graph)} µs", "`search.json`, `faiss-hnsw`"],
        ["bytes of an item in the IVF-PQ index of LanceDB", number(c.pq), "`search.json`, D = 256"],
        ["scan of LanceDB without an index, 140,000 rows", duration(c.flat_query), "`search.json`, `lancedb-flat`"],
    ]
    return Table(["constant, one thread", "value", "source"], rows)


def _embedding(c: Constants) -> str:
    rate = GPU.tf32 * EFFICIENCY / IMAGE.flops()
    hours = BILLION / (rate * c.embed_share) / 3600
    return (
        f"A billion images take {number(BILLION / c.prepared / 3600)} hours of one core to decode and prepare at the "
        f"measured rate, and {number(hours)} hours of one GPU for ViT-B/16 in TF32 (at {100 * EFFICIENCY:.0f} % of its "
        f"peak rate, times the share of `embed`). A GPU then encodes {number(rate)} images per second and needs "
        f"{number(rate / c.prepared)} cores that decode; images of more pixels need more cores. "
        f"A run of a billion items on Ray would send {number(c.cell * BILLION / 1e9)} GB of paths to every actor and "
        f"have {BILLION // PART:,} parts; a run of a million items sends {number(c.cell)} MB and has "
        f"{10**6 // PART:,} parts."
    )


def _storage(c: Constants) -> Table:
    rows = []
    for dim in (256, 512, 1024):
        sizes = [store_bytes(M, dim, dtype) for dtype in SIZES]
        sizes += [index_bytes(M, dim, c.catalog), export_bytes(M, dim), qdrant_bytes(M, dim)]
        rows.append([f"{dim:,}", *(f"{number(size)}" for size in sizes)])
    head = ["D", *(f"store, {dtype}" for dtype in SIZES), "our index", "exported vectors", "Qdrant in memory"]
    return Table(head, rows, f"Bytes per item of M = {M} modalities, which are GB for a billion items.")


def _search(c: Constants) -> Table:
    rows = []
    for small, large in zip(options(SMALL, 256, c), options(BILLION, 256, c), strict=True):
        cells = [small.name]
        for items, found in ((SMALL, small), (BILLION, large)):
            cells += [number(found.memory * items / 1e9), _or_dash(found.build), _or_dash(found.query)]
        rows.append(cells)
    head = ["one vector per item, D = 256", "GB", "build", "query", "GB", "build", "query"]
    note = f"Memory and time of one thread, for {SMALL:,} items and for a billion. –: not measured at this size."
    return Table(head, rows, note)


def _or_dash(seconds: float | None) -> str:
    return "–" if seconds is None else duration(seconds)
