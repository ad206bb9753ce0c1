"""Implementation of `unialign bridge`."""

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.cli._console import echo, shown
from unialign.config import BridgeConfig
from unialign.errors import DataError
from unialign.experiments import open_run_dir, write_json
from unialign.io import checked_path, describe_environment, replace_file, write_yaml
from unialign.migration import Bridge, bridge, plan
from unialign.report import write_bridge_report

MAPPED = "mapped.npy"
_OPTIONAL = (MAPPED, "plan.txt", "bridge.safetensors", "bridge.json", "results.json", "report.html")


def bridge_files(config: BridgeConfig, out: Path) -> int:
    """Build the bridge and write the results folder; return 0."""
    new = not out.exists()
    open_run_dir(out, "bridge")
    started = time.perf_counter()
    try:
        found = None if config.new is None else _build(config)
        rows_n = None if config.plan is None else _planned(config, found)
        for name in _OPTIONAL:
            (out / name).unlink(missing_ok=True)
        write_yaml(out / "config.yaml", config.to_dict())
        if found is not None:
            _write(out, config, found, started)
    finally:
        if new:
            with contextlib.suppress(OSError):
                out.rmdir()
    if rows_n is not None:
        replace_file(out / "plan.txt", "\n".join(map(str, rows_n.tolist())) + "\n")
        echo(f"Rows to embed next: {shown(out / 'plan.txt')}")
    if found is not None:
        echo(f"Report: {shown(out / 'report.html')}")
    return 0


def read_values(path: str, what: str) -> NDArray[Any]:
    """Read row numbers or ids from a `.npy` file, or from a text file with one value on each line.

    Raises:
        DataError: the file cannot be read, or is not a list of integers or strings.
    """
    file = checked_path(path, f"the file of {what}", error=DataError)
    try:
        if file.suffix == ".npy":
            values = np.load(file, allow_pickle=False)
        else:
            lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
            values = np.array([line for line in lines if line])
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as {what} ({error})") from None
    if values.ndim != 1 or values.dtype.kind not in "iuU" or not len(values):
        raise DataError(f"{file} must hold a list of integers or ids for {what}, got {values.dtype} {values.shape}")
    digits = values.dtype.kind == "U" and all(text.isascii() and text.isdigit() for text in values.tolist())
    return np.asarray(values.astype(np.int64) if digits else values)


def _build(config: BridgeConfig) -> Bridge:
    return bridge(
        config.old,
        config.new,
        pairs=None if config.pairs is None else read_values(config.pairs, "pairs"),
        queries=config.queries,
        known=None if config.known is None else read_values(config.known, "known answers"),
        old_queries=config.old_queries,
        old_modality=config.old_modality,
        new_modality=config.new_modality,
        goal=config.goal,
        methods="auto" if config.methods is None else list(config.methods),
        candidates=config.candidates,
        seed=config.seed,
    )


def _planned(config: BridgeConfig, found: Bridge | None) -> NDArray[np.int64]:
    assert config.plan is not None
    if found is not None:
        return found.plan(config.plan, seed=config.seed)
    return plan(config.old, config.plan, seed=config.seed, modality=config.old_modality)


def _write(out: Path, config: BridgeConfig, found: Bridge, started: float) -> None:
    found.save(out)
    if config.write_index:
        found.apply(out=out / MAPPED)
    write_json(out / "results.json", _results(config, found, time.perf_counter() - started))
    replace_file(out / "log.txt", found.text() + "\n")
    write_bridge_report(out)
    echo(found.text())


def _results(config: BridgeConfig, found: Bridge, seconds: float) -> dict[str, Any]:
    """Return the content of `results.json`, schema 1: a run for each candidate map."""
    overlap = {"mean": found.overlap.estimate, "low": found.overlap.low, "high": found.overlap.high}
    contained = {"mean": found.contained.estimate, "low": found.contained.low, "high": found.contained.high}
    return {
        "schema": 1,
        "environment": describe_environment(),
        "data": {
            "name": Path(config.old).name,
            "fingerprint": found.old_fingerprint,
            "items": found.items,
            "modalities": ["old", "new"],
            "sources": {"old": config.old, "new": config.new},
        },
        "protocol": {
            "name": "bridge: the map is fitted on the pairs; errors and overlaps use held-out predictions",
            "pairs": len(found.pairs),
            "queries": found.overlap.queries,
            "seed": config.seed,
            "selection": "the map with the lowest held-out error",
        },
        "runs": [
            {"objective": name, "seed": config.seed, "metrics": {"held_out_error": error}, "directions": {}}
            for name, error in found.errors.items()
        ],
        "summary": {found.method: {"overlap@10": overlap, f"contained@{found.candidates}": contained}},
        "seconds": seconds,
        "reproduce": "unialign bridge --config config.yaml --out again",
        "bridge": found.to_dict(),
    }
