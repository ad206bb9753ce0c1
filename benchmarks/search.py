"""Compare the search of an index with a float32 product and top-k, and with vector databases.

Each contestant runs in a process of its own, with the same float32 rows and number of threads, and answers the same
queries one at a time and 100 at once. The queries are of another modality than the rows. The script prints processor
time beside wall time per query, the fraction of the exact ten nearest rows that were found, processor time of the
build, bytes on disk per byte of the rows, and ratios.

    python -m benchmarks.search                        about 10 minutes
    python -m benchmarks.search --quick                fewer queries and rounds
    python -m benchmarks.search --only index usearch   replaces these rows of the result
    python -m benchmarks.search --full --out FILE      1,000,000 rows, about an hour and 6 GB of memory

The exit status is 1 if a ratio is above its limit. `product` is the reference: one float32 product and `torch.topk`.
The index answers with keys, labels and the scores of the modalities in float64, exact or, in the rows `ivf` and
`hnsw`, of approximate candidates. The settings of the databases are given in the code; where one can be chosen for its
recall, it is the fastest that reaches 0.95 on other queries. (Extra `bench`.)
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "search.json"
K, BATCH, RARE, PAIRED = 10, 100, 50, 3000
MODALITIES = ("audio", "image", "text", "video")
# Name -> (numerator, measurement, denominator, measurement, limit); limits of None are only reported.
RATIOS: dict[str, tuple[str, str, str, str, float | None]] = {
    "one query": ("index", "one", "product", "one", 1.3),
    "100 queries": ("index", "batch", "product", "batch", 1.5),
    "100 queries at once and one at a time": ("index", "batch", "index", "one", 0.25),
    "center + CSLS, one query": ("index-csls", "one", "index", "one", 1.25),
    "center + CSLS, 100 queries": ("index-csls", "batch", "index", "batch", 1.25),
    "filter of 2 %": ("index-filter", "one", "index", "one", 1.0),
    "approximate (hnsw) and exact": ("index-hnsw", "one", "index", "one", 0.1),
    "approximate (ivf) and exact": ("index-ivf", "one", "index", "one", 0.1),
    "exact index and faiss flat": ("index", "one", "faiss-flat", "one", None),
    "approximate (hnsw) and usearch": ("index-hnsw", "one", "usearch", "one", None),
    "filter of 2 %, index and LanceDB": ("index-filter", "one", "lancedb-flat-filter", "one", None),
    "four modalities, 30 % missing": ("index-any", "one", "product-any", "one", None),
    "four modalities, 30 % missing, 100 queries": ("index-any", "batch", "product-any", "batch", None),
}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=140_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=100, help="single queries in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true", help="1,000,000 rows")
    parser.add_argument("--only", nargs="+", choices=sorted(CONTESTANTS))
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--child", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.queries, arguments.rounds = 30, 2
    if arguments.full:
        arguments.rows = 1_000_000
    return arguments


def draw(rows: int, dim: int, folder: Path) -> None:
    """Write clustered rows, rows of a second modality that belong to some of them, and queries of the second modality.

    A constant of opposite signs is added to the two modalities, since their embeddings usually have different means.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    centers = rng.standard_normal((1000, dim), dtype=np.float32)
    gallery = centers[rng.integers(0, 1000, rows)] + rng.standard_normal((rows, dim), dtype=np.float32)
    paired = gallery[:PAIRED] + rng.standard_normal((PAIRED, dim), dtype=np.float32)
    asked = PAIRED + rng.permutation(rows - PAIRED)[:BATCH]
    queries = gallery[asked] + rng.standard_normal((BATCH, dim), dtype=np.float32)
    for name, x, shift in (("gallery", gallery, 0.5), ("paired", paired, -0.5), ("queries", queries, -0.5)):
        x += shift
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        np.save(folder / f"{name}.npy", x)
    for name, x in (("nearest", queries), ("nearest-paired", paired[:200])):
        np.save(folder / f"{name}.npy", np.argpartition(-(x @ gallery.T), K, axis=1)[:, :K])


# A contestant gets a folder, and returns a function from queries of shape (Q, D) to the keys of each query, or to
# anything else if it is not compared with the exact neighbors.
Search = Callable[[Any], Any]
WANTED = 0.95


def product(folder: Path, *, copies: int = 1) -> Search:
    import numpy as np
    import torch

    gallery = torch.from_numpy(np.load(folder / "gallery.npy"))
    rows = int(0.7 * len(gallery)) if copies > 1 else len(gallery)

    def search(queries: Any) -> Any:
        found = None
        for _ in range(copies):
            found = (torch.from_numpy(queries) @ gallery[:rows].T).topk(K).indices
        return None if copies > 1 else found

    return search


def tuned(search: Callable[[Any, int], Any], folder: Path, efforts: Iterable[int]) -> Search:
    """Use the smallest effort that finds 0.95 of the exact neighbors of the paired rows, which are no queries."""
    import numpy as np

    asked = np.load(folder / "paired.npy")[:200]
    nearest = np.load(folder / "nearest-paired.npy")
    effort = 0
    for effort in efforts:
        if recall(search(asked, effort), nearest) >= WANTED:
            break
    return lambda queries: search(queries, effort)


def recall(found: Any, nearest: Any) -> float:
    pairs = zip(found, nearest, strict=True)
    return sum(len({int(key) for key in got} & set(true.tolist())) / K for got, true in pairs) / len(nearest)


def faiss_index(folder: Path, *, kind: str) -> Search:
    import faiss
    import numpy as np

    faiss.omp_set_num_threads(1)
    gallery = np.load(folder / "gallery.npy")
    dim = gallery.shape[1]
    ip = faiss.METRIC_INNER_PRODUCT
    if kind == "flat":
        built = faiss.IndexFlatIP(dim)
    elif kind == "hnsw":
        built = faiss.IndexHNSWFlat(dim, 32, ip)
        built.hnsw.efConstruction = 80
    else:
        cells = int(4 * len(gallery) ** 0.5)
        built = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, ip)
        built.train(gallery[np.random.default_rng(0).permutation(len(gallery))[: 64 * cells]])
    built.add(gallery)
    faiss.write_index(built, str(stored(folder) / "index.faiss"))

    def search(queries: Any, effort: int) -> Any:
        given = {"flat": lambda: None, "hnsw": lambda: faiss.SearchParametersHNSW(efSearch=effort)}
        made = given.get(kind, lambda: faiss.SearchParametersIVF(nprobe=effort))()
        return built.search(queries, K, params=made)[1]

    return tuned(search, folder, [0] if kind == "flat" else [2**n for n in range(3 if kind == "hnsw" else 0, 11)])


def usearch(folder: Path) -> Search:
    import numpy as np
    from usearch.index import Index

    gallery = np.load(folder / "gallery.npy")
    built = Index(ndim=gallery.shape[1], metric="ip", dtype="f32", connectivity=32, expansion_add=80)
    built.add(np.arange(len(gallery)), gallery, threads=1)
    built.save(str(stored(folder) / "index.usearch"))

    def search(queries: Any, effort: int) -> Any:
        built.expansion_search = effort
        return built.search(queries, K, threads=1).keys.reshape(len(queries), -1)

    return tuned(search, folder, [2**n for n in range(4, 11)])


def lancedb(folder: Path, *, kind: str, where: str | None = None) -> Search:
    import lancedb as lance
    import numpy as np
    import pyarrow as pa

    gallery = np.load(folder / "gallery.npy")
    rows, dim = gallery.shape
    table = pa.table(
        {
            "id": pa.array(range(rows)),
            "key": [f"key {number}" for number in range(rows)],
            "label": labels(rows),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(gallery.reshape(-1)), dim),
        }
    )
    built = lance.connect(str(stored(folder))).create_table("items", table)
    if kind == "ivf":
        built.create_index(
            metric="cosine", index_type="IVF_PQ", num_partitions=int(rows**0.5), num_sub_vectors=dim // 8
        )
    if where is not None:
        built.create_scalar_index("label", index_type="BITMAP")

    def search(queries: Any, effort: int) -> Any:
        found = []
        for q in queries:
            asked = built.search(q).distance_type("cosine").limit(K).select(["id", "key", "label"])
            if kind == "ivf":
                asked = asked.nprobes(effort).refine_factor(10)
            if where is not None:
                asked = asked.where(where, prefilter=True)
            found.append(asked.to_arrow()["id"].to_pylist())
        return found

    return tuned(search, folder, [0] if kind == "flat" else [2**n for n in range(9)])


def stored(folder: Path) -> Path:
    """Folder whose bytes are counted."""
    (folder / "stored").mkdir(exist_ok=True)
    return folder / "stored"


def labels(rows: int) -> list[str]:
    return ["rare" if number % RARE == 0 else "common" for number in range(rows)]


def index(
    folder: Path,
    *,
    method: str = "none",
    target: str = "image",
    where: str | None = None,
    approximate: Any = None,
) -> Search:
    import numpy as np

    import unialign as ua
    from unialign.index import Index

    gallery = np.load(folder / "gallery.npy")
    rows, dim = gallery.shape
    names = MODALITIES if target == "any" else ("image", "text")
    rng = np.random.default_rng(1)
    built = Index.create(stored(folder), dim=dim, modalities=names)
    if target == "any":
        data = {name: gallery[rng.permutation(rows)] for name in names}
        present: Any = {name: rng.random(rows) < 0.7 for name in names}
    else:
        data = {"image": gallery, "text": np.concatenate([np.load(folder / "paired.npy"), gallery[PAIRED:]])}
        present = {"text": np.arange(rows) < PAIRED}
    with built.batch():
        built.add(data, present=present, labels=labels(rows), keys=[f"key {number}" for number in range(rows)])
    if built.calibration.method != method:
        built.calibrate(method=method)
    assert built.calibration.method == method
    if approximate is not None:
        built.build_approximate(kind=approximate, target=target, recall=WANTED)
    exact = approximate is None

    def search(queries: Any) -> Any:
        asked = [ua.query(vector=q, modality="text") for q in queries]
        found = built.search(asked, k=K, target=target, where=where, exact=exact)
        assert all(one.exact is exact for one in found)
        return [[key.split()[1] for key in one.keys] for one in found] if method == "none" else None

    return search


CONTESTANTS: Mapping[str, Callable[[Path], Search]] = {
    "product": product,
    "product-any": lambda folder: product(folder, copies=len(MODALITIES)),
    "index": index,
    "index-csls": lambda folder: index(folder, method="center_csls"),
    "index-filter": lambda folder: index(folder, where="label = 'rare'"),
    "index-any": lambda folder: index(folder, target="any"),
    "index-hnsw": lambda folder: index(folder, approximate="hnsw"),
    "index-ivf": lambda folder: index(folder, approximate="ivf"),
    "faiss-flat": lambda folder: faiss_index(folder, kind="flat"),
    "faiss-hnsw": lambda folder: faiss_index(folder, kind="hnsw"),
    "faiss-ivf": lambda folder: faiss_index(folder, kind="ivf"),
    "usearch": usearch,
    "lancedb-flat": lambda folder: lancedb(folder, kind="flat"),
    "lancedb-ivf-pq": lambda folder: lancedb(folder, kind="ivf"),
    "lancedb-flat-filter": lambda folder: lancedb(folder, kind="flat", where="label = 'rare'"),
}


def child(name: str, folder: Path, arguments: argparse.Namespace) -> None:
    import numpy as np
    import torch

    torch.set_num_threads(arguments.threads)
    queries = np.load(folder / "queries.npy")
    built = measured(lambda: CONTESTANTS[name](folder))
    search = built.pop("result")
    search(queries[:1])
    answers = search(queries)
    one, batch = [], []
    for _ in range(arguments.rounds):
        one.append(measured(lambda: [search(queries[n % BATCH][None]) for n in range(arguments.queries)]))
        batch.append(measured(lambda: search(queries)))
    result: dict[str, Any] = {
        "one": {kind: min(run[kind] for run in one) / arguments.queries for kind in ("cpu", "wall")},
        "batch": {kind: min(run[kind] for run in batch) / BATCH for kind in ("cpu", "wall")},
    }
    # Other contestants answer other questions.
    if answers is not None and not name.endswith(("-filter", "-any", "-csls")):
        result["recall"] = round(recall(answers, np.load(folder / "nearest.npy")), 4)
    result["build"] = built
    size = sum(path.stat().st_size for path in (folder / "stored").rglob("*") if path.is_file())
    if size:
        result["bytes_on_disk"] = size
    print(json.dumps(result))


def measured(call: Callable[[], Any]) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "result": result}


def run(name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    environment = os.environ | {f"{library}_NUM_THREADS": str(arguments.threads) for library in ("OMP", "MKL")}
    environment["LANCE_CPU_THREADS"] = environment["TOKIO_WORKER_THREADS"] = str(arguments.threads)
    environment["LANCEDB_LOG"] = environment["LANCE_LOG"] = "error"
    command = [sys.executable, "-m", "benchmarks.search", "--child", name, str(folder)]
    for option in ("queries", "rounds", "threads"):
        command += [f"--{option}", str(getattr(arguments, option))]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    columns = [f"{found[what][kind] * 1e3:9.2f}" for what in ("one", "batch") for kind in ("cpu", "wall")]
    columns += [f"{found[name]:9.3f}" if name in found else f"{'':9}" for name in ("recall",)]
    size = found.get("bytes_on_disk", 0) / (4 * arguments.rows * arguments.dim)
    print(f"{name:20}" + " ".join(columns) + f" {found['build']['cpu']:9.1f} {size:9.2f}", flush=True)
    shutil.rmtree(folder / "stored", ignore_errors=True)
    return found


def ratios_of(results: Mapping[str, Any]) -> dict[str, Any]:
    return {
        title: {"ratio": results[a][what]["cpu"] / results[b][other]["cpu"], "limit": limit}
        for title, (a, what, b, other, limit) in RATIOS.items()
        if a in results and b in results
    }


def save(results: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the results, with those of other contestants of earlier runs of the same size, and return them."""
    size = {"rows": arguments.rows, "dim": arguments.dim, "threads": arguments.threads, "k": K}
    stored = json.loads(arguments.out.read_text("utf-8")) if arguments.out.exists() else {}
    if arguments.only and {name: stored.get(name) for name in size} == size:
        results = stored["seconds_per_query"] | results
    content = size | {
        "queries": arguments.queries,
        "rounds": arguments.rounds,
        "versions": {name: version(name) for name in ("torch", "faiss-cpu", "lancedb", "usearch")},
        "seconds_per_query": {name: results[name] for name in CONTESTANTS if name in results},
        "ratios_of_processor_time": ratios_of(results),
    }
    arguments.out.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return results


def main() -> int:
    arguments = options()
    if arguments.child:
        child(arguments.child[0], Path(arguments.child[1]), arguments)
        return 0
    results: dict[str, Any] = {}
    print(f"{arguments.rows:,} x {arguments.dim}, {arguments.threads} thread(s); ms per query")
    titles = ("one: cpu", "wall", f"{BATCH}: cpu", "wall", "recall", "build, s", "disk")
    print(f"{'':20}" + " ".join(f"{title:>9}" for title in titles))
    with tempfile.TemporaryDirectory() as folder:
        draw(arguments.rows, arguments.dim, Path(folder))
        for name in arguments.only or CONTESTANTS:
            results[name] = run(name, Path(folder), arguments)
    ratios = ratios_of(save(results, arguments))
    for title, row in ratios.items():
        limit = row["limit"]
        print(f"{title:45} {row['ratio']:6.2f}" + ("" if limit is None else f"   at most {limit:g}"))
    return int(any(row["limit"] is not None and row["ratio"] > row["limit"] for row in ratios.values()))


if __name__ == "__main__":
    sys.exit(main())
