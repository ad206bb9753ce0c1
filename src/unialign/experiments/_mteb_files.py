"""Find the files that mteb writes.

Results are in `MODEL/REVISION/TASK.json`, and those of a variant of the model in `MODEL/REVISION/experiments/VARIANT/`.
`TASK_predictions.json` contains the retrieved documents of each query.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unialign.errors import DataError

# (split, subset) of a task.
Part = tuple[str, str]
_PREDICTIONS = "_predictions"
_VARIANTS = "experiments"
_META = "model_meta"
# Maximum size of a results file in bytes; files of predictions may be larger.
_MAX_BYTES = 2**28


@dataclass
class ModelFiles:
    """Results of one model revision; `scores` maps task -> part -> main score."""

    name: str
    revision: str
    scores: dict[str, dict[Part, float]] = field(default_factory=dict)
    predictions: dict[str, Path] = field(default_factory=dict)


def find_models(folders: Sequence[Path]) -> tuple[list[ModelFiles], list[str]]:
    models: dict[tuple[str, str], ModelFiles] = {}
    notes: list[str] = []
    predictions: list[tuple[Path, str]] = []
    for folder, path in _json_files(folders):
        if path.stem.endswith(_PREDICTIONS):
            predictions.append((path, path.stem.removesuffix(_PREDICTIONS)))
            continue
        content = read_json_object(path)
        scores = content.get("scores")
        if not isinstance(scores, Mapping) or path.stem == _META:
            continue
        name, revision = _model_of(path, folder)
        model = models.setdefault((name, revision), ModelFiles(name, revision))
        task = str(content.get("task_name") or path.stem)
        found = _main_scores(scores)
        if found:
            model.scores.setdefault(task, {}).update(found)
        else:
            notes.append(f"{path} has no finite main_score and is not used")
    if not models:
        raise DataError(
            f"{', '.join(map(str, folders))} has no mteb results; expected files such as MODEL/REVISION/TASK.json "
            "with an entry `scores`"
        )
    notes += _attach(predictions, models)
    return list(models.values()), notes


def read_json_object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES and not path.stem.endswith(_PREDICTIONS):
            raise DataError(f"{path} is larger than {_MAX_BYTES >> 20} MiB, so it is not a results file")
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); copy it again or remove it") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds {type(content).__name__}, expected a JSON object; remove it")
    return content


def _json_files(folders: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder; pass the folder that contains the mteb results")
        for path in sorted(folder.rglob("*.json")):
            if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
                yield folder, path


def _model_of(path: Path, folder: Path) -> tuple[str, str]:
    # The names of `.` and `..` follow from the absolute path.
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    parent, variant = path.parent, ""
    if parent.parent.name == _VARIANTS:
        parent, variant = parent.parent.parent, f" [{parent.name}]"
    inside = parent.relative_to(folder).parts
    # The usual path is FOLDER/MODEL/REVISION/TASK.json, but FOLDER may also be the folder of a model or of a revision.
    revision, name = (parent.name, parent.parent.name) if len(inside) != 1 else ("", parent.name)
    if len(inside) == 1 and "__" not in parent.name:
        revision, name = parent.name, parent.parent.name
    if not inside:
        revision, name = parent.name, parent.parent.resolve().name
    meta = parent / f"{_META}.json"
    if meta.is_file():
        given = read_json_object(meta)
        name = given["name"] if isinstance(given.get("name"), str) else name
        revision = given["revision"] if isinstance(given.get("revision"), str) else revision
    return name.replace("__", "/") + variant, revision


def _main_scores(scores: Mapping[str, Any]) -> dict[Part, float]:
    found: dict[Part, float] = {}
    for split, entries in scores.items():
        for entry in entries if isinstance(entries, list) else []:
            value = entry.get("main_score") if isinstance(entry, Mapping) else None
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                found[str(split), str(entry.get("hf_subset", "default"))] = float(value)
    return found


def _attach(predictions: list[tuple[Path, str]], models: Mapping[tuple[str, str], ModelFiles]) -> list[str]:
    notes = []
    for path, task in predictions:
        meta = read_json_object(path).get("mteb_model_meta")
        meta = meta if isinstance(meta, Mapping) else {}
        name, revision = meta.get("model_name"), meta.get("revision")
        found = [m for m in models.values() if m.name == name and (revision is None or m.revision == revision)]
        found = found or [m for m in models.values() if m.name == name]
        if len(found) == 1:
            found[0].predictions[task] = path
        else:
            notes.append(f"{path} belongs to {name}, for which there are {len(found)} sets of results; it is not used")
    return notes
