"""`unialign diagnose`: what is wrong with these embeddings?"""

import contextlib
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from unialign.cli._console import echo, shown
from unialign.diagnostics import DiagnosisReport, diagnose, make_results
from unialign.errors import ConfigError
from unialign.experiments import open_run_dir, read_yaml, write_json
from unialign.io import replace_file, write_yaml
from unialign.report import write_diagnosis_report

__all__ = ["run"]

_SETTINGS: dict[str, Any] = {"files": None, "modalities": None, "sample": None, "resamples": 1000, "seed": 0}


def run(options: Namespace) -> int:
    settings = _settings(options)
    out: Path = options.out
    new = not out.exists()
    open_run_dir(out, "diagnosis")  # an earlier diagnosis is replaced: it cost a minute and is made again as easily
    started = time.perf_counter()
    try:
        with _Progress() as progress:
            diagnosis = diagnose(
                settings["files"],
                modalities=settings["modalities"],
                sample=settings["sample"],
                resamples=settings["resamples"],
                seed=settings["seed"],
                on_progress=progress,
            )
        seconds = time.perf_counter() - started
        # Everything is known before anything is written.
        _write(out, settings, diagnosis, seconds)
    finally:
        # A folder made for a diagnosis that did not come about; one with anything in it stays.
        if new:
            with contextlib.suppress(OSError):
                out.rmdir()
    echo(diagnosis.text())
    echo()
    echo(f"{seconds:.0f} s. Report: {shown(out / 'report.html')}")
    return _status(diagnosis, options.fail_on)


def _status(diagnosis: DiagnosisReport, fail_on: str | None) -> int:
    """1 where something as bad as `fail_on` was found, for scripts; else 0."""
    failing = {None: (), "problem": ("problem",), "warning": ("problem", "warning")}[fail_on]
    return int(diagnosis.severity in failing)


def _write(out: Path, settings: Mapping[str, Any], diagnosis: DiagnosisReport, seconds: float) -> None:
    write_yaml(out / "config.yaml", settings)
    write_json(out / "results.json", make_results(diagnosis, seconds=seconds))
    replace_file(out / "log.txt", diagnosis.text() + "\n")
    write_diagnosis_report(out)


def _settings(options: Namespace) -> dict[str, Any]:
    """What to look at: the file's settings, if one is given, and over them those of the command line."""
    settings = dict(_SETTINGS)
    if options.config:
        raw = read_yaml(options.config)
        if unknown := sorted(set(raw) - set(settings)):
            raise ConfigError(f"{options.config}: unknown setting {', '.join(unknown)}; expected {', '.join(settings)}")
        settings |= raw
    given = {
        "files": options.files or None,
        "modalities": options.modalities,
        "sample": options.sample,
        "resamples": options.resamples,
        "seed": options.seed,
    }
    settings |= {key: value for key, value in given.items() if value is not None}
    for key in ("files", "modalities"):
        if not _texts(settings[key]) and not (key == "modalities" and settings[key] is None):
            what = "files of embeddings, or give --config" if key == "files" else "modalities as a list"
            raise ConfigError(
                f"name the {what}" if settings[key] is None else f"{key} is {settings[key]!r}, name {what}"
            )
    return settings


def _texts(value: Sequence[object] | None) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


class _Progress:
    """A bar of bytes on a terminal; elsewhere a line for each modality."""

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
        # Small files are read at once; a line about them would be noise.
        if done == total and self.bar.disable and time.perf_counter() - self.started > 1:
            echo(f"{name}: read {total / 1e9:.2f} GB in {time.perf_counter() - self.started:.1f} s")

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
