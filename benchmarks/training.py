"""Measure memory, time to the first step and time per step of `fit`: `python -m benchmarks.training`.

Every case runs in a separate process on one thread. `--before FOLDER` also measures the checkout of an earlier commit.
The files need 1 GB in `--folder`. Linux only, since memory is read from /proc.

    python -m benchmarks.training --before ../before
    python -m benchmarks.training --only steps
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.pages import RESULTS, ROOT, write_block

RESULT, PAGE = RESULTS / "training.json", ROOT / "docs" / "how-to" / "large-data.md"
DENSE = {"items": 500_000, "modalities": 4, "dim": 256}
SPARSE = {"items": 10_000_000, "modalities": 4, "dim": 512}
BATCH_SIZES = (256, 1024)
CASES = ("start", "steps", "plain", "sparse")
# Steps of each kind in turn; medians of paired differences do not depend on other load of the machine.
ROUNDS, STEPS = 6, 60


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", allow_abbrev=False)
    parser.add_argument("--before", type=Path, help="checkout of an earlier commit")
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--folder", type=Path, help="for the files of the stores (default: a temporary folder)")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--worker", nargs=2, metavar=("CASE", "STORE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        case, store = options.worker
        print("RESULT" + json.dumps(WORKERS[case](Path(store))))
        return
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for case in options.only:
            store = Path(folder) / ("sparse" if case == "sparse" else "dense")
            if not store.exists():
                run_worker("write_sparse" if case == "sparse" else "write_dense", store, ROOT)
            found[case] = {"now": run_worker(case, store, ROOT)}
            # An earlier commit holds the largest store in memory, which has no space for it.
            if options.before and case in ("start", "plain"):
                found[case]["before"] = run_worker(case, store, options.before.resolve())
            print(case, json.dumps(found[case]))
            options.out.write_text(json.dumps(found, indent=1) + "\n")
    if options.out == RESULT:
        write_block(PAGE, RESULT, f"\n{table(found)}\n")


def run_worker(case: str, store: Path, root: Path) -> Any:
    variables = {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", __file__, "--worker", case, str(store)]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, cwd=store.parent)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT")), None)
    if line is None:
        return {"failed": done.stderr.splitlines()[-1:] or done.returncode}
    return json.loads(line.removeprefix("RESULT"))


def write_dense(path: Path) -> None:
    import numpy as np

    from unialign.data import EmbeddingStore

    def parts() -> Iterator[dict[str, Any]]:
        rng = np.random.default_rng(0)
        for _ in range(DENSE["items"] // 10_000):
            shared = rng.standard_normal((10_000, DENSE["dim"]), dtype=np.float32)
            yield {
                f"m{m}": (shared + rng.standard_normal(shared.shape, dtype=np.float32)).astype(np.float16)
                for m in range(DENSE["modalities"])
            }

    EmbeddingStore.write(path, parts())


def write_sparse(path: Path) -> None:
    """Arrays are holes of files, except for their headers."""
    import numpy as np
    from numpy.lib import format as npy_format

    from unialign.data import EmbeddingStore

    names = [f"m{m}" for m in range(SPARSE["modalities"])]
    EmbeddingStore.write(path, {name: np.ones((2, SPARSE["dim"]), np.float16) for name in names})
    text = json.loads((path / "store.json").read_text())
    text["items"] = SPARSE["items"]
    for name in names:
        with (path / "arrays" / f"{name}.npy").open("wb") as file:
            shape = (SPARSE["items"], SPARSE["dim"])
            npy_format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
            size = file.tell() + shape[0] * shape[1] * 2
            file.truncate(size)
        text["columns"][name]["array"]["bytes"] = size
    (path / "store.json").write_text(json.dumps(text))


class Peak:
    """In MB; `anonymous` leaves out mapped files."""

    def __enter__(self) -> "Peak":
        self._before, self._most, self._done = self._now(), self._now(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self._most = [max(a, b) for a, b in zip(self._most, self._now(), strict=True)]

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def result(self) -> dict[str, float]:
        resident, anonymous = ((a - b) / 1000 for a, b in zip(self._most, self._before, strict=True))
        return {"peak_mb": round(resident), "peak_anonymous_mb": round(anonymous)}

    @staticmethod
    def _now() -> list[int]:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return [int(lines[name].split()[0]) * 1024 // 1000 for name in ("VmRSS", "RssAnon")]


def train(path: Path, batch_size: int, steps: int, **changes: Any) -> list[tuple[float, float]]:
    from unialign.data import EmbeddingStore
    from unialign.train import TrainConfig, fit

    times: list[tuple[float, float]] = []

    def after_step(info: Any) -> None:
        times.append((time.perf_counter(), time.process_time()))
        if len(times) == steps:
            raise KeyboardInterrupt

    config = TrainConfig(
        objective="infonce", batch_size=batch_size, epochs=1, logging_steps=10**6, monitor_steps=10**6, **changes
    )
    with contextlib.suppress(KeyboardInterrupt):
        fit(EmbeddingStore.open(path), config, device="cpu", progress="none", on_step=after_step)
    return times


def start(path: Path) -> dict[str, Any]:
    from unialign.train import fit  # noqa: F401 (torch and the package must not count)

    for file in (path / "arrays").iterdir():
        with file.open("rb") as handle:
            while handle.read(1 << 24):
                pass
    began = time.perf_counter(), time.process_time()
    with Peak() as peak:
        times = train(path, 1024, 100)
    return {
        "first_step_seconds": round(times[0][0] - began[0], 2),
        "first_step_cpu_seconds": round(times[0][1] - began[1], 2),
        **peak.result,
    }


def steps(path: Path) -> dict[str, Any]:
    import numpy as np

    from unialign.train import _training_data

    found: dict[str, Any] = {}
    for batch_size in BATCH_SIZES:
        milliseconds: dict[str, list[tuple[float, float]]] = {"streamed": [], "memory": []}
        for _ in range(ROUNDS):
            for kind, limit in (("streamed", 0), ("memory", 1 << 40)):
                _training_data._IN_MEMORY_BYTES = limit
                times = train(path, batch_size, STEPS)
                # The first step includes the start.
                milliseconds[kind].append(tuple(1000 * (np.array(times[-1]) - times[0]) / (STEPS - 1)))
        rows = {kind: np.median(values, axis=0) for kind, values in milliseconds.items()}
        ratio = np.median(np.array(milliseconds["streamed"]) / np.array(milliseconds["memory"]), axis=0)
        found[str(batch_size)] = {
            **{f"{kind}_{clock}_ms": round(float(row[i]), 2) for kind, row in rows.items() for i, clock in CLOCKS},
            **{f"ratio_{clock}": round(float(ratio[i]), 3) for i, clock in CLOCKS},
        }
    return found


CLOCKS = ((0, "wall"), (1, "cpu"))


def table(found: dict[str, Any]) -> str:
    lines = ["| measurement | this version | before |", "|---|---|---|"]

    def add(text: str, case: str, form: str, *keys: str) -> None:
        cells = []
        for version in ("now", "before"):
            value: Any = found.get(case, {}).get(version)
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            cells.append("" if value is None else form.format(value))
        lines.append(f"| {text} | {' | '.join(cells)} |")

    dense = "500,000 x 4 x 256 in float16 (1 GB)"
    add(f"{dense}: seconds to the first step, warm page cache", "start", "{:.1f}", "first_step_seconds")
    add(f"{dense}: processor seconds to the first step", "start", "{:.1f}", "first_step_cpu_seconds")
    add(f"{dense}: additional memory, mapped files included", "start", "{:,} MB", "peak_mb")
    add("10,000,000 x 4 x 512 in float16 (41 GB): additional memory of 100 steps", "sparse", "{:,} MB", "peak_mb")
    for size in BATCH_SIZES:
        add(f"processor time per step, streamed / in memory, B = {size:,}", "steps", "{:.3f}", str(size), "ratio_cpu")
    for size in (256, 512):
        add(f"processor time per step, `fit` / plain loop, B = {size}", "plain", "{:.3f}", str(size), "ratio")
    return "\n".join(lines) + "\n"


def sparse(path: Path) -> dict[str, Any]:
    from unialign.train import fit  # noqa: F401 (torch and the package must not count)

    began = time.perf_counter()
    with Peak() as peak:
        times = train(path, 1024, 100)
    return {"first_step_seconds": round(times[0][0] - began, 1), "steps": len(times), **peak.result}


def plain_loop(path: Path) -> dict[str, Any]:
    from benchmarks.plain_loop import compare

    return compare(rounds=ROUNDS, steps=STEPS)


WORKERS: dict[str, Any] = {
    "write_dense": write_dense,
    "write_sparse": write_sparse,
    "start": start,
    "steps": steps,
    "plain": plain_loop,
    "sparse": sparse,
}

if __name__ == "__main__":
    main()
