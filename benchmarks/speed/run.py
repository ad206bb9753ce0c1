"""Run the cases, keep their results, and write the page."""

import argparse
import hashlib
import json
import os
import platform
import tempfile
import time
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.cases import DIM, Case, Limits, cases, out_of_reach
from benchmarks.speed.exact import exact
from benchmarks.speed.gpu import measure_gpu
from benchmarks.speed.implementations import TAU, find_implementation, our_objective
from benchmarks.speed.inputs import draw
from benchmarks.speed.measure import in_process, measure
from benchmarks.speed.page import page
from benchmarks.speed.peers import COMPARISONS, PEER_SIZES, compare_with_peer
from benchmarks.speed.requirements import judge
from unialign import losses
from unialign.io import describe_environment, replace_file

__all__ = ["RESULTS", "run"]

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "speed.json"
PAGE = ROOT / "docs" / "reference" / "speed.md"
PACKAGES = ("open_clip_torch", "lightly", "pytorch-metric-learning", "sentence-transformers", "inf-cl", "memeff")
EXACT_UP_TO = {"nt-xent": 4096}  # float64 of 2 B rows; 16,384 for the others
LIMITS = Limits()


def source_fingerprint() -> str:
    """Results are kept only for the same code."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "src").rglob("*.py"), *Path(__file__).parent.glob("*.py")]):
        if path.name not in ("page.py", "requirements.py"):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def environment(threads: int) -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return describe_environment() | {
        "threads": threads,
        "processor": models[0] if models else platform.processor(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 10**9, 1),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "packages": {name: installed(name) for name in PACKAGES},
    }


def exact_file(case: Case, folder: Path) -> Path | None:
    if case.group == "objectives" or case.items > EXACT_UP_TO.get(case.group, 16384):
        return None
    path = folder / f"{case.group.replace('/', '-')}-{case.items}.pt"
    if not path.exists():

        def work() -> dict[str, Any]:
            value, gradients = exact(case.group, draw(case.modalities, case.items, case.dim))
            torch.save({"value": value, "gradients": gradients}, path)
            return {"status": "measured"}

        made = in_process(work, seconds=LIMITS.our_seconds, gigabytes=LIMITS.gigabytes)
        if made["status"] != "measured":
            print(f"no float64 value for {case.group} at {case.items}: {made}")
    return path


def limit_of(case: Case) -> float:
    if case.group == "objectives":
        return LIMITS.objective_seconds
    return LIMITS.our_seconds if find_implementation(case.group, case.name).ours else LIMITS.seconds


def run_case(case: Case, known: dict[str, Any], *, threads: int, folder: Path) -> dict[str, Any]:
    if skipped := out_of_reach(case, known, LIMITS, seconds=limit_of(case)):
        return skipped
    settings: dict[str, Any] = {
        "modalities": case.modalities,
        "items": case.items,
        "dim": case.dim,
        "threads": threads,
    }
    if case.group == "objectives":
        chosen = {"anchor": "m0"} if "anchor" in losses.parameter_names(case.name) else {}
        make = partial(our_objective, case.name, **chosen)
        settings["in_double"] = case.items == 256
    else:
        implementation = find_implementation(case.group, case.name)
        make = implementation.make
        settings |= {"steps_itself": implementation.steps_itself, "compiled": implementation.compiled}
        settings["exact_file"] = exact_file(case, folder)
    # The limit applies to one step; import, warm-up and counting of kept bytes need additional time.
    seconds = 3 * limit_of(case) + 60
    return in_process(partial(measure, make, **settings), seconds=seconds, gigabytes=LIMITS.gigabytes)


def describe(case: Case, row: dict[str, Any]) -> str:
    head = f"{case.group:26} {case.name:24} M={case.modalities} B={case.items:6}"
    if row["status"] != "measured":
        return f"{head}  {row['status']}: {row['reason']}"
    error = row.get("error")
    return (
        f"{head}  cpu {row['cpu_seconds']['best']:9.4f} s  peak {row['memory']['peak'] / 1e6:8.1f} MB  "
        + ("kept       -" if row["bytes_kept"] is None else f"kept {row['bytes_kept'] / 1e6:7.1f}")
        + (f"  errors {error['value']:.0e} {error['gradient']:.0e}" if error else "")
    )


def load(path: Path) -> dict[str, Any]:
    if path.exists():
        results: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return results
    return {"schema": 1, "environment": None, "cases": {}, "gpu": {"status": "open", "reason": "not tried"}}


def save(results: dict[str, Any], path: Path) -> None:
    replace_file(path, json.dumps(results, indent=1) + "\n")


def measure_all(arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    source = source_fingerprint()
    results["protocol"] = {
        "dim": DIM,
        "seed": 0,
        "temperature": TAU,
        "limits": {"gigabytes": LIMITS.gigabytes, "seconds": LIMITS.seconds, "our_seconds": LIMITS.our_seconds}
        | {"objective_seconds": LIMITS.objective_seconds},
    }
    known = results["cases"]
    wanted = cases(names=losses.names(), only=arguments.only, sizes=arguments.sizes, modalities=arguments.modalities)
    if wanted:
        results["environment"] = environment(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        for case in wanted:
            if arguments.names is not None and case.name not in arguments.names:
                continue
            before = known.get(case.key)
            same = before is not None and (before["source"], before["threads"]) == (source, arguments.threads)
            if arguments.resume and same:
                continue
            row = run_case(case, known, threads=arguments.threads, folder=Path(folder))
            if row["status"] == "absent" and before is not None and before["status"] == "measured":
                print(f"{case.key}: {row['reason']}; keeping the earlier result")
                continue
            known[case.key] = {
                "group": case.group,
                "name": case.name,
                "modalities": case.modalities,
                "items": case.items,
                "dim": case.dim,
                **row,
                "threads": arguments.threads,
                "source": source,
                "load": round(os.getloadavg()[0], 2),
            }
            save(results, arguments.out)
            print(describe(case, row), flush=True)
    if arguments.only is None or "peers" in arguments.only:
        compare_all(arguments, results, source=source)
    if arguments.only is None or "gpu" in arguments.only:
        results["gpu"] = in_process(measure_gpu, seconds=1200, gigabytes=1000.0)
        save(results, arguments.out)


def compare_all(arguments: argparse.Namespace, results: dict[str, Any], *, source: str) -> None:
    known = results.setdefault("peers", {})
    results["environment_of_peers"] = environment(arguments.threads)
    for comparison in COMPARISONS:
        for items in arguments.sizes or PEER_SIZES:
            wanted = arguments.names is None or comparison.key in arguments.names
            key = f"{comparison.key}/{items}"
            before = known.get(key)
            if not wanted or (arguments.resume and before is not None and before["source"] == source):
                continue
            work = partial(compare_with_peer, comparison, items, threads=arguments.threads)
            row = in_process(work, seconds=LIMITS.our_seconds, gigabytes=LIMITS.gigabytes)
            if row["status"] == "absent" and before is not None:
                print(f"{key}: {row['reason']}; keeping the earlier result")
                continue
            known[key] = {"items": items, **row, "threads": arguments.threads, "source": source}
            save(results, arguments.out)
            print(f"{key:28} {row.get('ratio', row.get('reason'))}", flush=True)


def run(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    results = load(arguments.out)
    if not arguments.page:
        measure_all(arguments, results)
        print(f"\n{(time.perf_counter() - started) / 60:.1f} minutes")
    docs = PAGE if arguments.docs is None and arguments.out == RESULTS else arguments.docs
    if docs is not None:
        retrieval = json.loads((RESULTS.parent / "retrieval.json").read_text("utf-8"))
        replace_file(docs, page(results, retrieval, docs.read_text("utf-8") if docs.exists() else None))
    verdicts = judge(results)
    print()
    for verdict in verdicts:
        print(f"{verdict.state:8} {verdict.requirement}: {verdict.found}")
    return 0 if all(v.state == "MET" for v in verdicts) else 1
