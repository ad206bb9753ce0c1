"""Implementation of `unialign diagnose`."""

import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from unialign.cli._console import echo, shown
from unialign.cli._quiet import is_quiet
from unialign.config import DiagnoseConfig
from unialign.diagnostics import DiagnosisReport, diagnose, make_results
from unialign.experiments import open_run_dir, write_json
from unialign.io import replace_file, write_yaml
from unialign.report import write_diagnosis_report


def diagnose_files(config: DiagnoseConfig, out: Path, fail_on: str | None) -> int:
    """Diagnose files and write the results folder; return 1 if a finding is at least as severe as `fail_on`, else 0."""
    new = not out.exists()
    open_run_dir(out, "diagnosis")  # An earlier diagnosis is overwritten, since it takes only a minute to repeat.
    started = time.perf_counter()
    try:
        with _progress() as progress:
            report = diagnose(
                list(config.files),
                modalities=config.modalities,
                id=config.id,
                sample=config.sample,
                resamples=config.resamples,
                seed=config.seed,
                on_progress=progress,
            )
        seconds = time.perf_counter() - started
        _write(out, config, report, seconds)
    finally:
        # Remove the new folder of a failed diagnosis if it is empty.
        if new:
            with contextlib.suppress(OSError):
                out.rmdir()
    echo(report.text())
    echo()
    echo(f"{seconds:.0f} s. Report: {shown(out / 'report.html')}")
    if report.proposed_ids is not None:
        echo(f"Proposed ids: {shown(out / 'ids.npy')}")
    failing = {None: (), "problem": ("problem",), "warning": ("problem", "warning")}[fail_on]
    return int(report.severity in failing)


def _write(out: Path, config: DiagnoseConfig, report: DiagnosisReport, seconds: float) -> None:
    write_yaml(out / "config.yaml", config.to_dict())
    write_json(out / "results.json", make_results(report, seconds=seconds))
    replace_file(out / "log.txt", report.text() + "\n")
    _write_ids(out / "ids.npy", report)
    write_diagnosis_report(out)


def _write_ids(path: Path, report: DiagnosisReport) -> None:
    """Write the proposed ids, or delete those of an earlier diagnosis."""
    if report.proposed_ids is None:
        path.unlink(missing_ok=True)
        return
    content = io.BytesIO()
    np.save(content, report.proposed_ids, allow_pickle=False)
    replace_file(path, content.getvalue())


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that shows the number of bytes read: a bar on a terminal, else a line for each modality."""
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
