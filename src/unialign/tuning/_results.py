"""Build `results.json` of a search."""

import math
import os
from collections.abc import Mapping
from typing import Any

from unialign._plain_text import count, join_words, percent, repeat_command
from unialign.config import TrainConfig, closed_form_of
from unialign.data import EmbeddingStore
from unialign.evaluation import SELECTION_METRICS
from unialign.experiments import describe_data, describe_metrics
from unialign.io import describe_environment
from unialign.tuning._choose import DEFAULT, Candidate, front_of
from unialign.tuning._final import CHOSEN, FOLDER, SHIPPED, earlier_comparisons
from unialign.tuning._scores import Goal, hypervolume
from unialign.tuning._search import Search
from unialign.tuning._trial import Trial

# Settings that trials differ in, in the order of tables.
_SHOWN = ("dim", "epochs", "lr", "weight_decay", "dropout", "hidden", "init_regularization", "init_spectrum_power")
_OF_MLP = ("dropout", "hidden")
_AUTO = {
    "label": "mean logarithm",
    "description": "mean of the logarithms of R@1, joint R@1 and label mAP",
    "better": "higher",
    "higher_is_better": True,
    "unit": "number",
    "primary": False,
}


def make_tuning_results(
    search: Search, store: EmbeddingStore, found: list[Candidate], test: Mapping[str, Any], out: str | os.PathLike[str]
) -> dict[str, Any]:
    """Return the content of `results.json`; `found` are the candidates, `test` the results of the comparison."""
    chosen, trials = found[0], search.finished()
    results: dict[str, Any] = {
        "schema": 1,
        "kind": "tuning",
        "data": describe_data(store, split="test")
        | {"train_items": len(store.rows("train")), "val_items": len(store.rows("val"))},
        "search": {
            **search.config.to_dict(),
            "finished": len(trials),
            "complete": sum(trial.state == "complete" for trial in trials),
            "pruned": sum(trial.state == "pruned" for trial in trials),
            "failed": sum(trial.state == "failed" for trial in trials),
            "shipped": [trial.number for trial in trials if trial.source == "shipped"],
            "trial_seconds": round(sum(trial.seconds for trial in search.trials.values()), 1),
            "elapsed_seconds": round(max(trial.elapsed for trial in search.trials.values()), 1),
        },
        "metrics": {**describe_metrics(), "auto": _AUTO},
        "front": front_of(search),
        "hypervolume": _hypervolume(search),
        "candidates": [_described(search, candidate) for candidate in found],
        "chosen": chosen.number,
        "default": DEFAULT,
        "trials": [_row(trial, search.goal) for trial in trials],
        "test": {
            "folder": FOLDER,
            "earlier": earlier_comparisons(search.folder),
            **{key: test[key] for key in ("objectives", "summary", "comparisons", "protocol")},
        },
        "environment": describe_environment(),
        "reproduce": repeat_command("tune", out),
    }
    return results | {"answer": answer(results)}


def settings_of(train: TrainConfig) -> dict[str, Any]:
    """Return the settings that matter, flat: the objective with its options, the head and its start, and numbers."""
    form = closed_form_of(train)
    unused = set() if train.head == "mlp" else set(_OF_MLP)
    unused |= {"init_spectrum_power", "init_regularization"} if train.head == "mlp" else set()
    unused |= {"init_spectrum_power"} if train.init == "ridge" else set()
    if form is not None:
        unused |= {"epochs", "lr", "weight_decay"}
    start = train.head if train.init == "random" else f"{train.head} from {train.init}"
    options = {} if form is not None else dict(train.objective_options)
    warmup = {"infonce_warmup_ratio": train.infonce_warmup_ratio} if train.infonce_warmup_ratio else {}
    return {
        "objective": form or train.objective,
        **options,
        **({} if form is not None else {"head": start}),
        **{name: getattr(train, name) for name in _SHOWN if name not in unused},
        **warmup,
    }


def answer(results: Mapping[str, Any]) -> str:
    """Return the answer in sentences, one about the validation split and one about the test split."""
    search, chosen, default = results["search"], results["candidates"][0], _candidate(results, DEFAULT)
    trials = count(search["finished"], "trial")
    stopped = f" ({search['pruned']} stopped early)" if search["pruned"] else ""
    if chosen["number"] == DEFAULT:
        return (
            f"The default settings were kept: none of {trials}{stopped} is better on the validation split. "
            f"{_tested(results)}"
        )
    by = join_words(_label(results, name) for name in search["metric"])
    pairs = [] if default is None else [_pair(results, name, chosen, default) for name in _shown_metrics(results)]
    against = f": {', '.join(pairs)}" if pairs else ""
    return (
        f"Trial {chosen['number']} ({chosen['name']}) was chosen from {trials}{stopped} by {by} on the validation "
        f"split{against}. {_tested(results)}"
    )


def _tested(results: Mapping[str, Any]) -> str:
    test, items, parts = results["test"], results["data"]["test_items"], []
    for name in SELECTION_METRICS:
        own = test["summary"][CHOSEN].get(name)
        if own is None:
            continue
        text = f"{_label(results, name)} {percent(own['mean'])} [{100 * own['low']:.1f}, {100 * own['high']:.1f}]"
        record = next((r for r in test["comparisons"] if (r["metric"], r["baseline"]) == (name, SHIPPED)), None)
        if record is not None:
            bounds = f"[{_signed(record['low'])}, {_signed(record['high'])}]"
            text += f", {_signed(record['difference'])} {bounds} against the default"
        parts.append(text)
    looks = len(test["earlier"]) + 1
    times = "once" if looks == 1 else f"{looks} times"
    return f"On {count(items, 'test item')}, read {times}, with 95 % intervals: {'; '.join(parts)}."


def _shown_metrics(results: Mapping[str, Any]) -> list[str]:
    metrics = list(results["search"]["metric"])
    known = results["candidates"][0]["metrics"]
    return [name for name in SELECTION_METRICS if name in known] if metrics == ["auto"] else metrics


def _pair(results: Mapping[str, Any], name: str, own: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    values = [side["metrics"].get(name, math.nan) for side in (own, other)]
    is_percent = results["metrics"][name]["unit"] == "percent"
    texts = [percent(value) if is_percent else f"{value:.3f}" for value in values]
    return f"{_label(results, name)} {texts[0]} (default {texts[1]})"


def _candidate(results: Mapping[str, Any], number: int) -> Mapping[str, Any] | None:
    return next((one for one in results["candidates"] if one["number"] == number), None)


def _label(results: Mapping[str, Any], name: str) -> str:
    return str(results["metrics"][name]["label"])


def _signed(value: float) -> str:
    text = f"{100 * value:+.1f}"
    return text[1:] if text in ("+0.0", "-0.0") else text


def _row(trial: Trial, goal: Goal) -> dict[str, Any]:
    return {
        "number": trial.number,
        "source": trial.source,
        "name": trial.name,
        "state": trial.state,
        "message": trial.message,
        "metrics": dict(trial.metrics),
        "score": goal.score(trial.metrics),
        "seconds": trial.seconds,
        "settings": settings_of(trial.train),
    }


def _described(search: Search, candidate: Candidate) -> dict[str, Any]:
    trial = search.first(candidate.number)
    return {
        "number": candidate.number,
        "name": trial.name,
        "source": trial.source,
        "metrics": dict(candidate.metrics),
        "seeds": candidate.seeds,
        "score": candidate.score,
        "settings": settings_of(trial.train),
        "train": trial.train.to_dict(),
    }


def _hypervolume(search: Search) -> dict[str, Any] | None:
    """Return the hypervolumes of the shipped settings and of all trials; None for a single metric.

    The reference point has the worst value of each metric among the shipped settings.
    """
    goal = search.goal
    if len(goal.metrics) == 1:
        return None
    points = {
        trial.number: (trial.source, [goal.sign(name) * trial.metrics[name] for name in goal.metrics])
        for trial in search.finished()
        if trial.state == "complete" and all(math.isfinite(trial.metrics.get(name, math.nan)) for name in goal.metrics)
    }
    shipped = [point for source, point in points.values() if source == "shipped"]
    if not shipped:
        return None
    reference = [min(column) for column in zip(*shipped, strict=True)]
    return {
        "reference": {name: goal.sign(name) * value for name, value in zip(goal.metrics, reference, strict=True)},
        "shipped": hypervolume(shipped, reference),
        "all": hypervolume([point for _, point in points.values()], reference),
    }
