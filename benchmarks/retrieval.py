"""Compare exact search among a million rows with faiss and torchmetrics: `python -m benchmarks.retrieval`.

The implementations alternate in separate processes with the same float32 rows and number of threads. The script reports
processor time, wall time and peak memory above the inputs, and compares neighbors and ranks. torchmetrics requires one
score for each pair, so it is compared at a smaller size.

    python -m benchmarks.retrieval                                   about 6 minutes
    python -m benchmarks.retrieval --gallery 100000 --rounds 2 --out retrieval.json

The exit status is 1 unless ranks take at most 1.2 times the time of faiss and all results agree. Requires
`unialign[bench]`, on Linux.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "retrieval.json"
REQUIRED, NEIGHBORS, CLOSE, CHECKED = 1.2, 10, 1e-6, 20
SMALL = (300, 2000)
CONTESTANTS = ("ranks", "knn", "faiss")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--gallery", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--child", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    return parser.parse_args()


def draw(queries: int, gallery: int, dim: int) -> tuple[Any, Any, Any]:
    import numpy as np

    generator = np.random.default_rng(0)
    gallery_GD = generator.standard_normal((gallery, dim), dtype=np.float32)
    own_Q = generator.permutation(gallery)[:queries]
    noise_Q1 = np.geomspace(1, 30, queries, dtype=np.float32)[:, None]
    queries_QD = gallery_GD[own_Q] + noise_Q1 * generator.standard_normal((queries, dim), dtype=np.float32)
    for rows in (queries_QD, gallery_GD):
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return queries_QD, gallery_GD, own_Q


def memory(field: str) -> int:
    """Memory of this process only, unlike `ru_maxrss`, which a process inherits from its parent."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def child(name: str, folder: Path, threads: int) -> None:
    import numpy as np

    queries_QD, gallery_GD, own_Q = (np.load(folder / f"{part}.npy") for part in ("queries", "gallery", "own"))
    search: Callable[[], dict[str, Any]]
    if name == "faiss":
        import faiss

        faiss.omp_set_num_threads(threads)
        index = faiss.IndexFlatIP(queries_QD.shape[1])
        index.search(queries_QD[:32], 1)
        loaded = memory("VmRSS")
        index.add(gallery_GD)

        def search() -> dict[str, Any]:
            return {"rows": index.search(queries_QD, NEIGHBORS)[1]}
    else:
        import torch

        from unialign import metrics

        torch.set_num_threads(threads)
        metrics.retrieval(queries_QD[:32], queries_QD[:32])
        metrics.knn(queries_QD[:32], queries_QD[:32], k=1)
        loaded = memory("VmRSS")
        if name == "ranks":
            ids_G = np.arange(len(gallery_GD))

            def search() -> dict[str, Any]:
                found = metrics.retrieval(queries_QD, gallery_GD, query_ids=own_Q, gallery_ids=ids_G)
                return {"ranks": found.ranks.numpy()}
        else:

            def search() -> dict[str, Any]:
                return {"rows": metrics.knn(queries_QD, gallery_GD, k=NEIGHBORS).rows.numpy()}

    wall, cpu = time.perf_counter(), time.process_time()
    found = search()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    np.savez(folder / f"found-{name}.npz", **found)
    print(json.dumps({"cpu_seconds": cpu, "wall_seconds": wall, "peak_bytes": memory("VmHWM") - loaded}))


def race(folder: Path, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    environment = os.environ | {f"{library}_NUM_THREADS": str(arguments.threads) for library in ("OMP", "MKL")}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    for number in range(arguments.rounds):
        for name in CONTESTANTS:
            command = [
                sys.executable,
                "-m",
                "benchmarks.retrieval",
                "--threads",
                str(arguments.threads),
                "--child",
                name,
                str(folder),
            ]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
            row = runs[name][-1]
            print(
                f"round {number + 1}  {name:8} {row['cpu_seconds']:7.2f} s processor {row['wall_seconds']:7.2f} s wall "
                f"{row['peak_bytes'] / 1e6:7.0f} MB",
                flush=True,
            )
    return {
        name: {
            "cpu_seconds": min(run["cpu_seconds"] for run in rows),
            "wall_seconds": min(run["wall_seconds"] for run in rows),
            "peak_bytes": max(run["peak_bytes"] for run in rows),
            "rounds": rows,
        }
        for name, rows in runs.items()
    }


def compared(folder: Path) -> dict[str, Any]:
    import numpy as np

    queries_QD, own_Q = np.load(folder / "queries.npy").astype(np.float64), np.load(folder / "own.npy")
    gallery_GD = np.load(folder / "gallery.npy", mmap_mode="r")
    ranks_Q = np.load(folder / "found-ranks.npz")["ranks"]
    ours_QK, theirs_QK = (np.load(folder / f"found-{name}.npz")["rows"] for name in ("knn", "faiss"))

    def cosines(i: Any, j: Any) -> Any:
        x_PD, y_PD = queries_QD[i], gallery_GD[j].astype(np.float64)
        return (x_PD * y_PD).sum(-1) / np.linalg.norm(x_PD, axis=-1) / np.linalg.norm(y_PD, axis=-1)

    query_P, place_P = np.nonzero(ours_QK != theirs_QK)
    gap_P = np.abs(
        cosines(query_P, ours_QK[query_P, place_P]) - cosines(query_P, theirs_QK[query_P, place_P])
    )  # over entries at equal positions of both lists
    hit_QK = theirs_QK == own_Q[:, None]
    # faiss may swap neighbors that float32 cannot distinguish.
    place_Q = np.where(hit_QK.any(1), hit_QK.argmax(1) + 1, NEIGHBORS + 1)
    odd_Q = np.flatnonzero(np.minimum(ranks_Q, NEIGHBORS + 1) != place_Q)
    swapped_Q = np.isin(odd_Q, query_P[gap_P <= CLOSE])
    checked_C = np.linspace(0, len(ranks_Q) - 1, CHECKED).astype(int)
    level_C = cosines(checked_C, own_Q[checked_C])
    above_C = np.ones(CHECKED)
    x_CD = queries_QD[checked_C] / np.linalg.norm(queries_QD[checked_C], axis=1, keepdims=True)
    for start in range(0, len(gallery_GD), 2**14):
        y_cD = gallery_GD[start : start + 2**14].astype(np.float64)
        above_C += (x_CD @ (y_cD / np.linalg.norm(y_cD, axis=1, keepdims=True)).T > level_C[:, None] + 1e-12).sum(1)
    return {
        "places": int(ours_QK.size),
        "places_with_another_row": len(gap_P),
        "largest_difference_of_their_cosines": float(gap_P.max(initial=0.0)),
        "ranks_beside_the_place_in_the_list": len(odd_Q),
        "of_those_explained_by_float32": int(swapped_Q.sum()),
        "ranks_checked_in_float64": CHECKED,
        "of_those_wrong": int((above_C != ranks_Q[checked_C]).sum()),
        "median_rank": float(np.median(ranks_Q)),
    }


def against_torchmetrics(threads: int) -> dict[str, Any]:
    import torch

    sys.path.insert(0, str(ROOT / "benchmarks"))
    from benchmarks.torchvision_shim import make_torchvision_importable

    make_torchvision_importable()  # torchmetrics imports this package
    from torchmetrics.retrieval import RetrievalMRR

    from unialign import metrics

    torch.set_num_threads(threads)
    queries_QD, gallery_GD, own_Q = draw(*SMALL, 256)

    def theirs() -> float:
        # torchmetrics ignores candidates with a score of at most 0.
        score_QG = 1 + (torch.from_numpy(queries_QD) @ torch.from_numpy(gallery_GD).mT).double()
        index_QG = torch.arange(SMALL[0])[:, None].expand(SMALL)
        target_QG = torch.arange(SMALL[1]) == torch.from_numpy(own_Q)[:, None]
        return float(RetrievalMRR()(score_QG.flatten(), target_QG.flatten(), indexes=index_QG.flatten()))

    def ours() -> float:
        return metrics.retrieval(queries_QD, gallery_GD, query_ids=own_Q, gallery_ids=range(SMALL[1])).mrr

    table: dict[str, list[tuple[float, float]]] = {"unialign": [], "torchmetrics": []}
    for _ in range(4):  # the first call is a warm-up
        for name, call in (("unialign", ours), ("torchmetrics", theirs)):
            started = time.process_time()
            value = call()
            table[name].append((time.process_time() - started, value))
    seconds = {name: min(run[0] for run in runs[1:]) for name, runs in table.items()}
    return {
        "queries": SMALL[0],
        "gallery": SMALL[1],
        "dim": 256,
        "cpu_seconds": seconds,
        "ratio": seconds["torchmetrics"] / seconds["unialign"],
        "difference_of_mrr": abs(table["unialign"][-1][1] - table["torchmetrics"][-1][1]),
    }


def main() -> None:
    arguments = options()
    if arguments.child is not None:
        child(arguments.child[0], Path(arguments.child[1]), arguments.threads)
        return
    import numpy as np

    from unialign.io import describe_environment

    print(f"Q = {arguments.queries}, G = {arguments.gallery}, D = {arguments.dim}, {arguments.threads} thread(s)")
    with tempfile.TemporaryDirectory() as folder:
        parts = draw(arguments.queries, arguments.gallery, arguments.dim)
        for part, rows in zip(("queries", "gallery", "own"), parts, strict=True):
            np.save(Path(folder) / f"{part}.npy", rows)
        del parts, rows
        seconds = race(Path(folder), arguments)
        agreement = compared(Path(folder))
    small = against_torchmetrics(arguments.threads)
    ratios = {
        name: {clock: seconds[name][clock] / seconds["faiss"][clock] for clock in ("cpu_seconds", "wall_seconds")}
        for name in ("ranks", "knn")
    }
    equal = (
        agreement["of_those_wrong"] == 0
        and agreement["largest_difference_of_their_cosines"] <= CLOSE
        and agreement["ranks_beside_the_place_in_the_list"] == agreement["of_those_explained_by_float32"]
        and small["difference_of_mrr"] <= CLOSE
    )
    met = equal and max(ratios["ranks"].values()) <= REQUIRED
    facts = {
        "schema": 1,
        "environment": describe_environment()
        | {"threads": arguments.threads, "load": os.getloadavg()[0]}
        | {name: version(name) for name in ("faiss-cpu", "torchmetrics")},
        "protocol": "best of alternating rounds, one process each, float32 unit rows in memory, seed 0",
        "queries": arguments.queries,
        "gallery": arguments.gallery,
        "dim": arguments.dim,
        "neighbors": NEIGHBORS,
        "contestants": seconds,
        "times_of_faiss": ratios,
        "required_at_most": REQUIRED,
        "results": agreement,
        "torchmetrics": small,
        "met": met,
    }
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio['cpu_seconds']:.2f} times faiss' processor time, {ratio['wall_seconds']:.2f} times wall")
    print(f"torchmetrics takes {small['ratio']:.0f} times our time at {SMALL[0]} x {SMALL[1]}")
    print(json.dumps(agreement, indent=1))
    print("MET" if met else "NOT MET")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
