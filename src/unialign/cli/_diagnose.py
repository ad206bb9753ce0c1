"""Implementation of `unialign diagnose`."""

import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from unialign.cli._console import echo, shown
from unialign.cli._fix_list import check_fix_list, find_fixes, write_fix_list
from unialign.cli._quiet import is_quiet
from unialign.config import DiagnoseConfig
from unialign.diagnostics import DiagnosisReport, DriftReport, diagnose, make_drift_results, make_results
from unialign.errors import ConfigError
from unialign.experiments import open_run_dir, write_json
from unialign.io import replace_file, write_yaml
from unialign.report import write_diagnosis_report, write_drift_report


def diagnose_files(config: DiagnoseConfig, out: Path, fail_on: str | None, fix_list: Path | None = None) -> int:
    """Return 1 if a finding is at least as severe as `fail_on`, else 0."""
    _check_out(out, [*config.files, *(config.against or ())])
    if fix_list is not None:
        check_fix_list(fix_list)
        if config.against is not None:
            raise ConfigError("--fix-list lists faults of items and cannot be combined with --against")
    new = not out.exists()
    open_run_dir(out, "diagnosis")  # An earlier diagnosis is overwritten, since it takes only a minute to repeat.
    started = time.perf_counter()
    try:
        with _progress() as progress:
            report = _diagnosis(config, progress)
        seconds = time.perf_counter() - started
        _write(out, config, report, seconds)
        fixes = None if fix_list is None else find_fixes(config)
    finally:
        # Remove the new folder of a failed diagnosis if it is empty.
        if new:
            with contextlib.suppress(OSError):
                out.rmdir()
    echo(report.text())
    echo()
    echo(f"{seconds:.0f} s. Report: {shown(out / 'report.html')}")
    if isinstance(report, DiagnosisReport) and report.proposed_ids is not None:
        echo(f"Proposed ids: {shown(out / 'ids.npy')}")
    if fix_list is not None and fixes is not None:
        found, compared, items = fixes
        write_fix_list(fix_list, found)
        removed = len({fix.key for fix in found if fix.action == "remove"})
        checked = len({fix.key for fix in found if fix.action == "check"})
        echo(f"Items to check: {checked:,}, to remove: {removed:,}, in {shown(fix_list)}")
        if compared < items:
            echo(f"Mispaired items, copies, hubs and outliers were looked for in {compared:,} of {items:,} items.")
    failing = {None: (), "problem": ("problem",), "warning": ("problem", "warning")}[fail_on]
    return int(report.severity in failing)


def _check_out(out: Path, sources: Sequence[str]) -> None:
    """Proposed ids are replaced or deleted, so no source may be in the results folder."""
    folder = out.resolve()
    for source in sources:
        for text in {source, source.partition("=")[2] or source}:
            if "\0" in text:
                continue  # no file can have this name, and the reader raises a clear error
            path = Path(text)
            if folder in path.resolve().parents and (path.exists() or set(path.name) & set("*?[")):
                raise ConfigError(f"{source} is inside {out}, whose files are replaced; choose another --out")


def _diagnosis(config: DiagnoseConfig, progress: Callable[[str, int, int], None]) -> DiagnosisReport | DriftReport:
    files = list(config.files)
    options = {name: getattr(config, name) for name in ("modalities", "id", "sample", "resamples", "seed")}
    against = None if config.against is None else list(config.against)
    if against is not None:
        return diagnose(files, against=against, on_progress=progress, **options)
    return diagnose(files, batch_size=config.batch_size, on_progress=progress, **options)


def _write(out: Path, config: DiagnoseConfig, report: DiagnosisReport | DriftReport, seconds: float) -> None:
    write_yaml(out / "config.yaml", config.to_dict())
    replace_file(out / "log.txt", report.text() + "\n")
    if isinstance(report, DriftReport):
        _write_ids(out / "ids.npy", None)
        write_json(out / "results.json", make_drift_results(report, seconds=seconds, out=out))
        write_drift_report(out)
        return
    _write_ids(out / "ids.npy", report.proposed_ids)
    write_json(out / "results.json", make_results(report, seconds=seconds, out=out))
    write_diagnosis_report(out)


def _write_ids(path: Path, ids_N: NDArray[np.int64] | None) -> None:
    if ids_N is None:
        path.unlink(missing_ok=True)
        return
    content = io.BytesIO()
    np.save(content, ids_N, allow_pickle=False)
    replace_file(path, content.getvalue())


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    name, done, started = "", 0, 0.0
    with tqdm(unit="B", unit_scale=True, disable=is_quiet() or not sys.stderr.isatty(), leave=False) as bar:

        def read(modality: str, now: int, total: int) -> None:
            nonlocal name, done, started
            if modality != name:
                name, done, started = modality, 0, time.perf_counter()
                bar.reset(total)
                bar.set_description(modality)
            bar.update(now - done)
            done, seconds = now, time.perf_counter() - started
            # Report slow reads only.
            if done == total and bar.disable and seconds > 1:
                echo(f"{modality}: read {total / 1e9:.2f} GB in {seconds:.1f} s")

        yield read
