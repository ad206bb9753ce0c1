"""Measure the storage of an index: opening, adding, deleting, filters, lookups by key, and bytes on disk.

    python -m benchmarks.index_storage                     1,000 and 1,000,000 items; about 5 minutes and 3 GB of disk
    python -m benchmarks.index_storage --items 1000 50000  prints the figures, and does not replace the stored result

CPU and wall seconds of one thread. The items have random rows of `--dim` dimensions in one modality, and 70 % of them
also in a second one. Opening and the first search are measured in a new process with the package imported, once after
the pages of all files were dropped from the cache of the operating system (`cold`), and repeatedly (`warm`).
"""

import argparse
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import unialign as ua

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "index_storage.json"
DEFAULT = [1000, 1_000_000]
PRESENT = 0.7
BLOCK = 100_000


def timed(work: Callable[[], Any], repeats: int = 1) -> tuple[dict[str, float], Any]:
    """Median wall and CPU seconds, and the last result."""
    wall, cpu, result = [], [], None
    for _ in range(repeats):
        started, used = time.perf_counter(), time.process_time()
        result = work()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return {"wall": round(float(np.median(wall)), 4), "cpu": round(float(np.median(cpu)), 4)}, result


def drop_pages(folder: Path) -> None:
    """Ask the operating system to drop the files of a folder from its cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            number = os.open(path, os.O_RDONLY)
            try:
                os.fsync(number)
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(number)


def measure_open(folder: Path) -> dict[str, Any]:
    """Open an index in this process, which has imported the package and used another index."""
    dim = json.loads((folder.parent / "dim.json").read_text("utf-8"))
    row = np.random.default_rng(1).standard_normal(dim).astype(np.float32)
    query = ua.query(vector=row, modality="image")
    with tempfile.TemporaryDirectory() as other:
        with ua.Index.create(Path(other) / "index", dim=8, modalities=["image", "text"]) as small:
            rows = np.random.default_rng(2).standard_normal((60, 8), np.float32)
            small.add({"image": rows, "text": rows})
        with ua.Index.open(Path(other) / "index") as small:
            small.search(ua.query(vector=rows[0], modality="image"), target="image")
    cold, index = timed(lambda: ua.Index.open(folder))
    first, _ = timed(lambda: index.search(query, target="image"))
    index.close()
    warm, index = timed(lambda: ua.Index.open(folder), 5)
    warm_first, _ = timed(lambda: index.search(query, target="image"))
    next_ones, _ = timed(lambda: index.search(query, target="image"), 5)
    index.close()
    return {
        "open, cold": cold,
        "first search, cold": first,
        "open, warm": warm,
        "first search, warm": warm_first,
        "next search": next_ones,
    }


def opened(folder: Path) -> dict[str, Any]:
    drop_pages(folder)
    command = [sys.executable, "-m", "benchmarks.index_storage", "--child", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(folder: Path, items: int, dim: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {"items": items, "dim": dim}
    index = ua.Index.create(folder, dim=dim, modalities=["image", "text"])
    added = []
    present_rows = 0
    for start in range(0, items, BLOCK):
        count = min(BLOCK, items - start)
        data = {name: rng.standard_normal((count, dim), np.float32) for name in ("image", "text")}
        has = rng.random(count) < PRESENT
        present_rows += count + int(has.sum())
        keys = [f"item {start + n}" for n in range(count)]
        labels = [f"label {n % 50}" for n in range(count)]
        seconds, _ = timed(
            lambda data=data, has=has, keys=keys, labels=labels: index.add(
                data, present={"text": has}, keys=keys, labels=labels
            )
        )
        added.append(seconds)
    found["add"] = added[-1]
    found["add, first"] = added[0]
    bytes_on_disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and "wal" not in path.name)
    of_parts = sum(path.stat().st_size for path in (folder / "parts").rglob("*") if path.is_file())
    present = present_rows * dim * 4
    found |= {"parts / present": round(of_parts / present, 4), "disk / present": round(bytes_on_disk / present, 4)}
    index.close()
    (folder.parent / "dim.json").write_text(json.dumps(dim), "utf-8")
    found |= opened(folder)
    reader = ua.Index.open(folder)
    chosen = [f"item {n}" for n in rng.integers(items, size=200)]
    seconds, _ = timed(lambda: [reader.get(key) for key in chosen], 3)
    found["get, each"] = {name: round(value / len(chosen), 6) for name, value in seconds.items()}
    found["filter, label (2 %)"], _ = timed(lambda: reader._selected("label = 'label 7'"), 3)
    found["filter, key range and presence"], _ = timed(lambda: reader._selected("key < 'item 2' and has(text)"), 3)
    asked = ua.query(item="item 1")
    found["search"], _ = timed(lambda: reader.search(asked), 3)
    found["search, filter of 2 %"], _ = timed(lambda: reader.search(asked, where="label = 'label 7'"), 3)
    one = f"key = 'item {items // 2}'"
    found["search, filter of one key"], _ = timed(lambda: reader.search(asked, where=one), 3)
    reader.close()
    with ua.Index.open(folder, mode="w") as writer:
        found["delete by filter, 2 %"], _ = timed(lambda: writer.delete(where="label = 'label 7'"))
        gone = [f"item {n}" for n in range(0, items, 10)]
        found["delete 10 %"], _ = timed(lambda: writer.delete(keys=gone))
        found["update, one"], _ = timed(lambda: writer.update("item 1", label="x"), 5)
    of_deleted = opened(folder)
    found |= {f"{name}, 12 % deleted": of_deleted[name] for name in ("open, cold", "open, warm")}
    with ua.Index.open(folder, mode="w") as writer:
        found["compact, all"], _ = timed(lambda: writer.compact(everything=True))
        found["verify"], problems = timed(writer.verify)
    if problems:
        raise SystemExit(f"verify: {problems[:3]}")
    found["peak memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=DEFAULT)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--folder", type=Path, default=None, help="folder for the indexes, which are deleted")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        print(json.dumps(measure_open(options.child)))
        return
    results = []
    for items in options.items:
        work = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            results.append(measure(work / "index", items, options.dim))
            print(json.dumps(results[-1], indent=1), flush=True)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    if options.items == DEFAULT:
        versions = {"numpy": np.__version__, "torch": torch.__version__, "sqlite": sqlite3.sqlite_version}
        content = {"versions": versions, "seconds_of_one_thread": results}
        RESULT.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
