"""Read and write records of finished trainings, and check that their settings match.

Each record is a safetensors file with the resampled metrics (R,) as tensors and everything else as JSON metadata.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from unialign.errors import DataError
from unialign.io import finite, replace_file

__all__ = ["Record", "read_record", "write_record"]

_SCHEMA = 1


@dataclass(frozen=True)
class Record:
    """Record of a finished training.

    Attributes:
        metrics: final metrics, including the last measurements of the hook; empty if training failed.
        directions: direction such as `"a->b"` -> metrics.
        evaluations: measurements of the hook during training, each with its `step`.
        facts: duration in seconds, number of parameters, number of steps, temperature, and warnings.
        failed: error message; "" if training succeeded.
        resampled: metric -> values (R,), one per resample; all records use the same resamples.
    """

    metrics: dict[str, float]
    directions: dict[str, dict[str, float]] = field(default_factory=dict)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    failed: str = ""
    resampled: dict[str, Tensor] = field(default_factory=dict, repr=False)


def write_record(path: Path, settings: Mapping[str, Any], record: Record) -> None:
    plain = {name: value for name, value in vars(record).items() if name != "resampled"}
    text = json.dumps(finite({"schema": _SCHEMA, "settings": settings, "record": plain}), allow_nan=False)
    replace_file(path, safetensors.torch.save(record.resampled, metadata={"study": text}))


def read_record(path: Path, settings: Mapping[str, Any]) -> Record | None:
    """Return None if the file does not exist."""
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            body = json.loads((file.metadata() or {})["study"])
            resampled = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        there, raw = body["settings"], body["record"]
        if body["schema"] != _SCHEMA:
            raise ValueError(f"schema {body['schema']!r}, expected {_SCHEMA}")
        record = Record(
            metrics=_numbers(raw["metrics"]),
            directions={name: _numbers(values) for name, values in raw["directions"].items()},
            evaluations=[_numbers(values) for values in raw["evaluations"]],
            facts=raw["facts"],
            failed=raw["failed"],
            resampled=resampled,
        )
    except (
        OSError, KeyError, ValueError, TypeError, AttributeError, RecursionError, safetensors.SafetensorError
    ) as error:  # fmt: skip
        raise DataError(f"{path} is not a valid record of a study ({error}); delete the file to train again") from None
    here = json.loads(json.dumps(finite(settings)))
    if there != here:
        odd = sorted(key for key in there.keys() | here.keys() if there.get(key) != here.get(key))
        raise DataError(
            f"{path} has other settings ({', '.join(odd)} differ); choose another --out, or delete the file"
        )
    return record


def _numbers(raw: Mapping[str, Any]) -> dict[str, float]:
    return {name: float("nan") if value is None else value for name, value in raw.items()}
