"""What commands print: a progress bar on a terminal, plain lines elsewhere; parsing of `--set`."""

import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from unialign.errors import ConfigError
from unialign.experiments import RunRecord

__all__ = ["RunProgress", "chosen_workers", "echo", "parse_settings", "shown", "training_settings"]


def echo(text: str = "") -> None:
    """Print a line. When nobody can read it any more (`| head`, a full disk), the work goes on in silence."""
    try:
        # A bar that is being drawn would be torn by a bare print.
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
    except OSError:
        # The descriptor, not `sys.stdout`: what is still in its buffer is written when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def chosen_workers(asked: int | None, runs: int) -> int:
    """How many trainings go on at the same time: as many as asked for, else one a core if there are as many."""
    if asked is None:
        return max(1, min(os.cpu_count() or 1, runs))
    if asked < 1:
        raise ConfigError(f"--workers must be at least 1, got {asked}")
    return asked


class RunProgress:
    """Says each finished run; on a terminal a bar shows how many are left."""

    def __init__(self, total: int, labels: Mapping[str, str]) -> None:
        self.done, self.total, self.labels = 0, total, labels
        self.bar = tqdm(total=total, unit="run", disable=not sys.stderr.isatty(), leave=False)

    def __call__(self, key: str, seed: int, record: RunRecord) -> None:
        self.done += 1
        self.bar.update()
        recall = 100 * record.evaluation.metrics["recall@1"]
        echo(f"[{self.done}/{self.total}] {self.labels[key]}, seed {seed}: {record.seconds:.1f} s, R@1 {recall:.1f} %")
        for warning in record.warnings:
            echo(f"    health: {warning['message']}")

    def __enter__(self) -> "RunProgress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` with YAML values: numbers, true, null, [lists], text."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set takes KEY=VALUE, got {pair!r}")
        settings[key] = _value(key, value)
    return settings


def _value(key: str, text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: {text!r} is not a plain value: {error}") from error
    try:
        return float(value) if isinstance(value, str) else value  # YAML takes 1e-3 for text
    except ValueError:
        return value


def training_settings(options: Namespace) -> dict[str, Any]:
    """Training settings given on the command line, ready for `TrainConfig`; what was not given is absent."""
    given = {
        "modalities": options.modalities and tuple(options.modalities),
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "micro_batch_size": options.micro_batch_size,
        "lr": options.lr,
        "dim": options.dim,
        "objective_options.anchor": options.anchor,
    }
    return {key: value for key, value in given.items() if value is not None} | parse_settings(options.set)


def shown(path: Path) -> str:
    """A path as the user would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
