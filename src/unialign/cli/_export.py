"""Implementation of `unialign export`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unialign.cli._console import echo, shown
from unialign.config import ExportFormat
from unialign.space import Space


def export(source: str, out: Path, *, format: ExportFormat, modalities: Sequence[str] | None, encoders: bool) -> int:
    Space.from_pretrained(source).export(out, format=format, modalities=modalities, encoders=encoders)
    described = json.loads((out / "io.json").read_text("utf-8"))["modalities"]
    for name, entry in described.items():
        inputs = ", ".join(f"{found['name']} {_shape(found)}" for found in entry["inputs"])
        echo(f"{name}: {shown(out / entry['file'])}, {inputs} -> {_shape(entry['output'])}")
    echo(f"Description: {shown(out / 'io.json')}")
    return 0


def _shape(entry: Mapping[str, Any]) -> str:
    return f"({', '.join(map(str, entry['shape']))})"
