"""Implementation of `unialign bridge`."""

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._plain_text import repeat_command
from unialign.cli._console import echo, shown
from unialign.config import BridgeConfig
from unialign.errors import ConfigError, DataError
from unialign.experiments import open_run_dir, write_json
from unialign.io import checked_path, describe_environment, replace_file, write_yaml
from unialign.migration import Bridge, RowSource, bridge, open_rows, plan
from unialign.readers.npy import NpyReader
from unialign.report import write_bridge_report

MAPPED, PLAN = "mapped.npy", "plan.txt"
_RESULTS = ("config.yaml", "bridge.safetensors", "bridge.json", "results.json", "report.html", "log.txt")
_PLAN_NOTE = (
    "These rows are near the centers of clusters and are not a random sample, so use other pairs to estimate intervals."
)


def bridge_files(config: BridgeConfig, out: Path) -> int:
    """Build a bridge, a plan or both. An existing plan is kept, since the pairs may refer to it."""
    _check_inputs(config, out)
    new = not out.exists()
    before = open_run_dir(out, "bridge")
    started = time.perf_counter()
    try:
        found = None if config.new is None else _build(config)
        rows_n = None if config.plan is None else _planned(config, found)
        if before is None or found is not None or before.get("new") is None:
            write_yaml(out / "config.yaml", config.to_dict())
        if found is not None:
            _write(out, config, found, started)
    finally:
        if new:
            with contextlib.suppress(OSError):
                out.rmdir()
    if rows_n is not None:
        replace_file(out / PLAN, "\n".join(map(str, rows_n.tolist())) + "\n")
        echo(f"Rows to embed next: {shown(out / PLAN)}. {_PLAN_NOTE}")
    if found is not None:
        echo(f"Report: {shown(out / 'report.html')}")
    return 0


def _check_inputs(config: BridgeConfig, out: Path) -> None:
    """Raise ConfigError if the run would replace or remove one of its inputs."""
    written = ([] if config.new is None else [*_RESULTS, MAPPED]) + ([] if config.plan is None else [PLAN])
    replaced = {(out / name).resolve() for name in written}
    for source in (config.old, config.new, config.pairs, config.queries, config.known, config.old_queries):
        if source is None:
            continue
        for path in {source, source.partition("=")[2] or source}:
            if checked_path(path, "the input", error=DataError).resolve() in replaced:
                raise ConfigError(f"{source} would be replaced in {out}; choose another --out")


def read_values(path: str, what: str) -> NDArray[Any]:
    file = checked_path(path, f"the file of {what}", error=DataError)
    try:
        if file.suffix == ".npy":
            (array,) = NpyReader().open(file).entries.values()
            values = array.load()
        else:
            # Some editors write a byte order mark, which is not part of the first value.
            lines = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
            values = np.array([line for line in lines if line])
    except DataError:
        raise  # the message of the reader names the file
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as {what} ({error})") from None
    if values.ndim != 1 or values.dtype.kind not in "iuU" or not len(values):
        raise DataError(f"{file} must hold a list of integers or ids for {what}, got {values.dtype} {values.shape}")
    return np.asarray(values)


def _are_numbers(values_n: NDArray[Any]) -> bool:
    """Return whether the values may be row numbers; larger numbers can only be ids."""
    if values_n.dtype.kind != "U":
        return bool((values_n <= np.iinfo(np.int64).max).all())
    return all(text.isascii() and text.isdigit() and len(text) < 19 for text in values_n.tolist())


def read_pairs(config: BridgeConfig, index: RowSource) -> NDArray[Any] | None:
    if config.pairs is None:
        return None
    values_n = read_values(config.pairs, "pairs")
    text_n = values_n.astype(np.str_)
    is_number = _are_numbers(values_n)
    if config.pairs_by == "row" and not is_number:
        raise ConfigError(f"{config.pairs} holds ids, not row numbers; use --pairs-by id")
    if config.pairs_by == "id" or not is_number:
        return np.asarray(text_n)
    rows_n: NDArray[np.int64] = np.asarray(values_n.astype(np.int64))
    if config.pairs_by is None and index.ids is not None and np.isin(text_n, index.ids).all():
        is_row = (rows_n >= 0) & (rows_n < len(index))
        if not (is_row.all() and np.array_equal(index.ids[rows_n], text_n)):
            raise ConfigError(
                f"the numbers in {config.pairs} are ids of the old index and can also be row numbers; add "
                "--pairs-by id or --pairs-by row"
            )
    return rows_n


def read_known(config: BridgeConfig) -> NDArray[np.int64] | None:
    if config.known is None:
        return None
    values_Q = read_values(config.known, "known answers")
    if not _are_numbers(values_Q):
        raise DataError(f"{config.known} holds ids; give the row number of the correct answer to each query")
    return np.asarray(values_Q.astype(np.int64))


def _build(config: BridgeConfig) -> Bridge:
    index = open_rows(config.old, "old", modality=config.old_modality)
    if config.pairs is not None and Path(config.pairs).name == PLAN:
        echo(f"Note: {shown(Path(config.pairs))} is a plan. {_PLAN_NOTE}")
    return bridge(
        index,
        config.new,
        pairs=read_pairs(config, index),
        queries=config.queries,
        known=read_known(config),
        old_queries=config.old_queries,
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
    else:
        (out / MAPPED).unlink(missing_ok=True)
    write_json(out / "results.json", _results(config, found, time.perf_counter() - started, out))
    replace_file(out / "log.txt", found.text() + "\n")
    write_bridge_report(out)
    echo(found.text())


def _results(config: BridgeConfig, found: Bridge, seconds: float, out: Path) -> dict[str, Any]:
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
        "reproduce": repeat_command("bridge", out),
        "bridge": found.to_dict(),
    }
