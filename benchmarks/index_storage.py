"""Measure the storage of an index: opening, adding, deleting, filters, lookups by key, and bytes on disk.

Run `python -m benchmarks.index_storage --items 1000 1000000`. CPU and wall seconds of one process with one thread.
Rows of the items are random, in one modality with `--dim` dimensions, and in a second one for 70 % of the items.
"""

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import unialign as ua

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
    open_seconds, reader = timed(lambda: ua.Index.open(folder), 5)
    found["open"] = open_seconds
    chosen = [f"item {n}" for n in rng.integers(items, size=200)]
    seconds, _ = timed(lambda: [reader.get(key) for key in chosen], 3)
    found["get, each"] = {name: round(value / len(chosen), 6) for name, value in seconds.items()}
    found["filter, label (2 %)"], _ = timed(lambda: reader._selected("label = 'label 7'"), 3)
    found["filter, key range and presence"], _ = timed(lambda: reader._selected("key < 'item 2' and has(text)"), 3)
    found["first search"], _ = timed(lambda: reader.search(ua.query(item="item 1")))
    reader.close()
    with ua.Index.open(folder, mode="w") as writer:
        gone = [f"item {n}" for n in range(0, items, 10)]
        found["delete 10 %"], _ = timed(lambda: writer.delete(keys=gone))
        found["update, one"], _ = timed(lambda: writer.update("item 1", label="x"), 5)
    found["open, 10 % deleted"], reader = timed(lambda: ua.Index.open(folder), 3)
    reader.close()
    with ua.Index.open(folder, mode="w") as writer:
        found["compact"], _ = timed(lambda: writer.compact(everything=True))
        found["verify"], problems = timed(writer.verify)
    if problems:
        raise SystemExit(f"verify: {problems[:3]}")
    found["peak memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[1000, 1_000_000])
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--folder", type=Path, default=None, help="folder for the indexes, which are deleted")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for items in options.items:
        work = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            json.dump(measure(work / "index", items, options.dim), sys.stdout, indent=1)
            print()
        finally:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
