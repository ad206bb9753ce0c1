"""Scores of several models on the same tasks and, if known, on the queries of the tasks.

Shapes: `M` models, `T` tasks, `Q` queries of a task.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._checks import suggestion
from unialign._plain_text import count, join_words
from unialign.errors import ConfigError, DataError
from unialign.experiments._mteb_files import ModelFiles, Part, find_models, read_json_object
from unialign.experiments._mteb_queries import TOLERANCE, ndcg_per_query, parts_of, read_qrels

# Maximum absolute score; squares of larger differences could overflow.
_MAX_SCORE = 1e100
# Splits whose scores are used; if a task has none of these splits, all its splits are used.
_SPLITS = ("test",)
_LISTED = 5


@dataclass(frozen=True)
class ScoreTable:
    """Scores of models on tasks.

    Attributes:
        models: names of the M models.
        tasks: names of the T tasks that all models have.
        scores_MT: main score of each model on each task, the mean over the subsets that all models have.
        queries: task -> (M, Q) scores of the queries, whose mean is the score of the task; empty if the scores of
            queries are not known.
        notes: remarks on models, tasks and files that were left out.
    """

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    scores_MT: NDArray[np.float64]
    queries: Mapping[str, NDArray[np.float64]]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expected = (len(self.models), len(self.tasks))
        if self.scores_MT.shape != expected:
            raise DataError(f"scores_MT must have shape {expected}, got {self.scores_MT.shape}")
        if not (np.abs(self.scores_MT) <= _MAX_SCORE).all():
            raise DataError(
                f"scores_MT must be finite, with absolute values of at most {_MAX_SCORE:.0e}; remove or correct the "
                f"others"
            )
        for task, scores_MQ in self.queries.items():
            if task not in self.tasks or scores_MQ.ndim != 2 or len(scores_MQ) != len(self.models):
                raise DataError(f"queries[{task!r}] must be a task with one row per model")
            if not (np.abs(scores_MQ) <= _MAX_SCORE).all():
                raise DataError(f"queries[{task!r}] must be finite, with absolute values of at most {_MAX_SCORE:.0e}")

    @property
    def has_queries(self) -> bool:
        """Whether the scores of single queries are known for every task."""
        return all(task in self.queries for task in self.tasks)


def read_mteb(
    folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    models: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    qrels: str | os.PathLike[str] | None = None,
) -> ScoreTable:
    """Read result folders of mteb (`MODEL/REVISION/TASK.json`) into a table of the tasks that all models have.

    mteb stores one score per task. If the folders also contain the retrieved documents (`TASK_predictions.json`, which
    `prediction_folder=` writes) and `qrels` names a folder with the relevant documents, the nDCG@10 of each query is
    computed. The computed values are used if their mean equals the stored score of every model.

    Args:
        folders: one or several folders, such as `~/.cache/mteb/results` or a clone of the results repository.
        models: names of models to read, such as "intfloat/multilingual-e5-small"; None: all.
        tasks: names of tasks; models that lack a task are left out. None: the tasks that all models have.
        splits: splits to average; None: `test`, or all splits of a task without `test`.
        qrels: folder with `TASK.json` (subset -> split -> query -> document -> relevance) or BEIR's `TASK.tsv`.

    Raises:
        DataError: a file is damaged, there is no score, or the models have no task in common.
        ConfigError: an unknown model or task, or an option that is not a list of names.
    """
    listed = list(folders) if isinstance(folders, Iterable) else [folders]
    given = [folders] if isinstance(folders, str | os.PathLike) else listed
    if not given or not all(isinstance(path, str | os.PathLike) for path in given):
        raise ConfigError(f"folders must be a folder or a list of folders, got {folders!r}")
    if not isinstance(qrels, str | os.PathLike | None):
        raise ConfigError(f"qrels must be a folder or None, got {qrels!r}")
    for option, names in (("models", models), ("tasks", tasks), ("splits", splits)):
        _check_names(option, names)
    found, notes = find_models([Path(folder) for folder in given])
    entries = _chosen_revisions(found, tasks, notes)
    if not entries:
        first = f": {notes[0]}" if notes else ""
        raise DataError(f"no model has results with a finite main_score{first}; evaluate the models again")
    entries = _chosen_models(entries, models)
    entries, names = _chosen_tasks(entries, tasks, notes)
    parts = {task: _shared_parts(entries, task, splits, notes) for task in names}
    names = [task for task in names if parts[task]]
    if not names:
        raise DataError("the models have no task with a common subset; specify the models or the splits to compare")
    scores_MT = np.array(
        [[np.mean([model.scores[task][part] for part in parts[task]]) for task in names] for model in entries]
    )
    queries = {} if qrels is None else _queries(entries, {task: parts[task] for task in names}, Path(qrels), notes)
    return ScoreTable(tuple(model.name for model in entries), tuple(names), scores_MT, queries, tuple(notes))


def _check_names(option: str, names: object) -> None:
    if names is None:
        return
    if isinstance(names, str):
        raise ConfigError(f"{option} must be a list such as [{names!r}], got the string {names!r}")
    if not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{option} must be a list of strings, got {names!r}")
    if not len(names):
        raise ConfigError(f"{option} is empty; give at least one name, or None for the default")


def _chosen_revisions(found: Sequence[ModelFiles], tasks: Sequence[str] | None, notes: list[str]) -> list[ModelFiles]:
    """Choose the revision with the most requested tasks, or the first one in a tie."""
    wanted = None if tasks is None else set(tasks)
    asked = "" if tasks is None else "requested "
    entries: dict[str, ModelFiles] = {}
    for model in found:
        if not model.scores:
            continue
        other = entries.get(model.name)
        if other is None:
            entries[model.name] = model
            continue
        new, old = (len(m.scores if wanted is None else wanted & set(m.scores)) for m in (model, other))
        kept, left = (model, other) if new > old else (other, model)
        why = f"as many {asked}tasks and was found first" if new == old else f"more {asked}tasks"
        notes.append(f"{model.name}: revision {left.revision} is not used, since {kept.revision} has {why}")
        entries[model.name] = kept
    return [entries[name] for name in sorted(entries)]


def _chosen_models(entries: list[ModelFiles], models: Sequence[str] | None) -> list[ModelFiles]:
    if models is None:
        return entries
    known = {model.name: model for model in entries}
    for name in models:
        if name not in known:
            raise ConfigError(f"no results of the model {name!r}{suggestion(name, known)}")
    return [known[name] for name in dict.fromkeys(models)]


def _chosen_tasks(
    entries: list[ModelFiles], tasks: Sequence[str] | None, notes: list[str]
) -> tuple[list[ModelFiles], list[str]]:
    every = dict.fromkeys(task for model in entries for task in sorted(model.scores))
    if tasks is not None:
        for task in tasks:
            if task not in every:
                raise ConfigError(f"no results on the task {task!r}{suggestion(task, every)}")
        complete = [model for model in entries if set(tasks) <= set(model.scores)]
        if left := [model.name for model in entries if model not in complete]:
            notes.append(f"{count(len(left), 'model')} without all tasks: {_listed(left)}")
        if not complete:
            raise DataError(f"no model has results on all of {join_words(tasks)}; specify fewer tasks")
        return complete, list(dict.fromkeys(tasks))
    common = [task for task in every if all(task in model.scores for model in entries)]
    if not common:
        sizes = _listed([f"{model.name} ({count(len(model.scores), 'task')})" for model in entries])
        raise DataError(f"the models have no common task: {sizes}; specify the tasks or the models to compare")
    if len(common) < len(every):
        notes.append(
            f"{len(every) - len(common):,} of {len(every):,} tasks are left out, since not all models have results on "
            "them"
        )
    return entries, common


def _shared_parts(
    entries: Sequence[ModelFiles], task: str, splits: Sequence[str] | None, notes: list[str]
) -> list[Part]:
    common = set.intersection(*(set(model.scores[task]) for model in entries))
    wanted = splits or [split for split in _SPLITS if any(part[0] == split for part in common)]
    parts = sorted(part for part in common if not wanted or part[0] in wanted)
    missing = {part for model in entries for part in model.scores[task] if not wanted or part[0] in wanted} - set(parts)
    if not parts:
        notes.append(f"{task} is left out, since the models have no common split and subset of it")
    elif missing:
        notes.append(f"{task}: {count(len(missing), 'subset')} left out, since not all models have results on them")
    return parts


def _queries(
    entries: Sequence[ModelFiles], parts: Mapping[str, Sequence[Part]], folder: Path, notes: list[str]
) -> dict[str, NDArray[np.float64]]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; pass the folder with the relevant documents, such as TASK.tsv")
    found = {}
    for task, chosen in parts.items():
        relevant = read_qrels(folder, task)
        lacking = [model.name for model in entries if task not in model.predictions]
        if relevant is None or lacking:
            why = f"{folder} has no {task}.json or {task}.tsv" if relevant is None else f"no {_listed(lacking)}"
            notes.append(f"{task}: queries are not scored, since predictions or relevances are missing ({why})")
            continue
        rows = [_query_scores(model, task, chosen, relevant) for model in entries]
        if any(row is None for row in rows):
            notes.append(f"{task}: queries are not scored, since the mean of their nDCG@10 is not the stored score")
            continue
        found[task] = np.stack([row for row in rows if row is not None])
    return found


def _query_scores(
    model: ModelFiles, task: str, parts: Sequence[Part], relevant: Mapping[Part, Any]
) -> NDArray[np.float64] | None:
    """Return weighted scores whose mean is the task score; None on a mismatch."""
    path = model.predictions[task]
    retrieved = parts_of(read_json_object(path), path)
    values = []
    for part in parts:
        if part not in relevant or part not in retrieved:
            return None
        scores = ndcg_per_query(retrieved[part], relevant[part])
        if not scores or abs(np.mean(list(scores.values())) - model.scores[task][part]) > TOLERANCE:
            return None
        values.append(np.array([scores[query] for query in sorted(scores)]))
    # Weight the queries so that all subsets have equal weight.
    total = sum(map(len, values))
    return np.concatenate([value * (total / (len(values) * len(value))) for value in values])


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return join_words([*names[:_LISTED], f"{more:,} more"]) if more > 0 else join_words(names)
