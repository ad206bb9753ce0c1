"""Implementation of `unialign diagnose`."""

import contextlib
import sys
import time
from pathlib import Path

from tqdm import tqdm

from unialign.cli._console import echo, shown
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
        with _Progress() as progress:
            report = diagnose(
                list(config.files),
                modalities=config.modalities,
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
    failing = {None: (), "problem": ("problem",), "warning": ("problem", "warning")}[fail_on]
    return int(report.severity in failing)


def _write(out: Path, config: DiagnoseConfig, report: DiagnosisReport, seconds: float) -> None:
    write_yaml(out / "config.yaml", config.to_dict())
    write_json(out / "results.json", make_results(report, seconds=seconds))
    replace_file(out / "log.txt", report.text() + "\n")
    write_diagnosis_report(out)


class _Progress:
    """A progress bar of bytes on a terminal; elsewhere a line for each modality."""

    def __init__(self) -> None:
        self.name, self.done, self.started = "", 0, 0.0
        self.bar = tqdm(unit="B", unit_scale=True, disable=not sys.stderr.isatty(), leave=False)

    def __call__(self, name: str, done: int, total: int) -> None:
        if name != self.name:
            self.name, self.done, self.started = name, 0, time.perf_counter()
            self.bar.reset(total)
            self.bar.set_description(name)
        self.bar.update(done - self.done)
        self.done = done
        # Small files are read in one chunk; reporting them would be noise.
        if done == total and self.bar.disable and time.perf_counter() - self.started > 1:
            echo(f"{name}: read {total / 1e9:.2f} GB in {time.perf_counter() - self.started:.1f} s")

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
