"""Compare the search of an index with a float32 product and top-k: `python -m benchmarks.search`.

Each contestant runs in a process of its own, with the same float32 rows and number of threads, and answers the same
queries one at a time and 100 at once. The script prints processor time beside wall time per query, and ratios.

    python -m benchmarks.search                        about 3 minutes
    python -m benchmarks.search --quick                about 1 minute, fewer queries and rounds

The exit status is 1 if a ratio is above its limit. `product` is the reference: one float32 product and `torch.topk`.
The index answers with exact results in float64, keys, labels and the scores of the modalities.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "search.json"
K, BATCH, RARE = 10, 100, 50
MODALITIES = ("audio", "image", "text", "video")
# Name -> (numerator, measurement, denominator, measurement, limit); limits of None are only reported.
RATIOS: dict[str, tuple[str, str, str, str, float | None]] = {
    "one query": ("index", "one", "product", "one", 1.3),
    "100 queries": ("index", "batch", "product", "batch", 1.5),
    "100 queries at once and one at a time": ("index", "batch", "index", "one", 0.25),
    "center + CSLS, one query": ("index-csls", "one", "index", "one", 1.25),
    "center + CSLS, 100 queries": ("index-csls", "batch", "index", "batch", 1.25),
    "filter of 2 %": ("index-filter", "one", "index", "one", 1.0),
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
    parser.add_argument("--only", nargs="+", choices=sorted(CONTESTANTS))
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--child", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.queries, arguments.rounds = 30, 2
    return arguments


def draw(rows: int, dim: int, folder: Path) -> None:
    """Write clustered rows, with a constant added for a modality gap, and queries near some of them."""
    import numpy as np

    rng = np.random.default_rng(0)
    centers = rng.standard_normal((1000, dim), dtype=np.float32)
    gallery = centers[rng.integers(0, 1000, rows)] + rng.standard_normal((rows, dim), dtype=np.float32)
    queries = gallery[rng.permutation(rows)[:BATCH]] + rng.standard_normal((BATCH, dim), dtype=np.float32)
    for name, x in (("gallery", gallery), ("queries", queries)):
        x += 0.5
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        np.save(folder / f"{name}.npy", x)


# A contestant gets the folder and returns functions (queries of shape (Q, D) -> answer) for one and for many queries.
Search = Callable[[Any], Any]


def product(folder: Path, *, copies: int = 1) -> Search:
    import numpy as np
    import torch

    gallery = torch.from_numpy(np.load(folder / "gallery.npy"))
    rows = int(0.7 * len(gallery)) if copies > 1 else len(gallery)

    def search(queries: Any) -> Any:
        found = None
        for _ in range(copies):
            found = (torch.from_numpy(queries) @ gallery[:rows].T).topk(K)
        return found

    return search


def index(folder: Path, *, method: str = "none", target: str = "image", where: str | None = None) -> Search:
    import numpy as np

    import unialign as ua
    from unialign.index import Index

    gallery = np.load(folder / "gallery.npy")
    rows, dim = gallery.shape
    names = MODALITIES if target == "any" else ("image", "text")
    rng = np.random.default_rng(1)
    built = Index.create(folder / f"index-{method}-{target}-{where is None}", dim=dim, modalities=names)
    if target == "any":
        data = {name: gallery[rng.permutation(rows)] for name in names}
        present: Any = {name: rng.random(rows) < 0.7 for name in names}
    else:
        data = {"image": gallery, "text": gallery}
        present = {"text": np.arange(rows) < 3000}
    labels = ["rare" if number % RARE == 0 else "common" for number in range(rows)]
    with built.batch():
        built.add(data, present=present, labels=labels, keys=[f"key {number}" for number in range(rows)])
    if built.calibration.method != method:
        built.calibrate(method=method)
    assert built.calibration.method == method
    given = "text"

    def search(queries: Any) -> Any:
        asked = [ua.query(vector=q, modality=given) for q in queries]
        return built.search(asked, k=K, target=target, where=where)

    return search


CONTESTANTS: Mapping[str, Callable[[Path], Search]] = {
    "product": product,
    "product-any": lambda folder: product(folder, copies=len(MODALITIES)),
    "index": index,
    "index-csls": lambda folder: index(folder, method="center_csls"),
    "index-filter": lambda folder: index(folder, where="label = 'rare'"),
    "index-any": lambda folder: index(folder, target="any"),
}


def child(name: str, folder: Path, arguments: argparse.Namespace) -> None:
    import numpy as np
    import torch

    torch.set_num_threads(arguments.threads)
    queries = np.load(folder / "queries.npy")
    search = CONTESTANTS[name](folder)
    search(queries[:1])
    search(queries)
    one, batch = [], []
    for _ in range(arguments.rounds):
        one.append(measured(lambda: [search(queries[n % BATCH][None]) for n in range(arguments.queries)]))
        batch.append(measured(lambda: search(queries)))
    result = {
        "one": {kind: min(run[kind] for run in one) / arguments.queries for kind in ("cpu", "wall")},
        "batch": {kind: min(run[kind] for run in batch) / BATCH for kind in ("cpu", "wall")},
    }
    print(json.dumps(result))


def measured(call: Callable[[], Any]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def run(name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    environment = os.environ | {f"{library}_NUM_THREADS": str(arguments.threads) for library in ("OMP", "MKL")}
    command = [sys.executable, "-m", "benchmarks.search", "--child", name, str(folder)]
    for option in ("queries", "rounds", "threads"):
        command += [f"--{option}", str(getattr(arguments, option))]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    columns = [f"{found[what][kind] * 1e3:9.2f}" for what in ("one", "batch") for kind in ("cpu", "wall")]
    print(f"{name:14}" + " ".join(columns), flush=True)
    return found


def main() -> int:
    arguments = options()
    if arguments.child:
        child(arguments.child[0], Path(arguments.child[1]), arguments)
        return 0
    results: dict[str, Any] = {}
    print(f"{arguments.rows:,} x {arguments.dim}, {arguments.threads} thread(s); ms per query")
    print(f"{'':14}{'one: cpu':>9} {'wall':>9} {f'{BATCH}: cpu':>9} {'wall':>9}")
    with tempfile.TemporaryDirectory() as folder:
        draw(arguments.rows, arguments.dim, Path(folder))
        for name in arguments.only or CONTESTANTS:
            results[name] = run(name, Path(folder), arguments)
    ratios: dict[str, Any] = {}
    for title, (a, what, b, other, limit) in RATIOS.items():
        if a in results and b in results:
            ratio = results[a][what]["cpu"] / results[b][other]["cpu"]
            ratios[title] = {"ratio": ratio, "limit": limit}
            print(f"{title:45} {ratio:6.2f}" + ("" if limit is None else f"   at most {limit:g}"))
    if not arguments.only:
        content = {
            "rows": arguments.rows,
            "dim": arguments.dim,
            "threads": arguments.threads,
            "queries": arguments.queries,
            "rounds": arguments.rounds,
            "k": K,
            "seconds_per_query": results,
            "ratios_of_processor_time": ratios,
        }
        arguments.out.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return int(any(row["limit"] is not None and row["ratio"] > row["limit"] for row in ratios.values()))


if __name__ == "__main__":
    sys.exit(main())
