"""Entries of a comparison whose settings are searched, with the same number of trials for each objective."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from unialign.cli._console import chosen_workers, echo
from unialign.cli._tune import trial_line
from unialign.config import CompareConfig, HyperparameterSearchConfig
from unialign.experiments import TUNING_FOLDER, make_entry
from unialign.tuning import choose_settings


def tuned_comparison(
    data: str,
    objectives: Sequence[str],
    training: Mapping[str, Any],
    settings: Mapping[str, Any],
    options: argparse.Namespace,
) -> CompareConfig:
    """Search the settings of each objective in `tuning/NAME` of the results folder; finished trials are read back."""
    entries = {}
    # The searches use a seed that the runs of the comparison do not use.
    seeds = settings.get("seeds") or next(one.default for one in CompareConfig.settings() if one.name == "seeds")
    seed = max(seeds) + 1
    for name in objectives:
        config = HyperparameterSearchConfig(
            trials=options.tune_trials, objectives=(name,), fixed=dict(training), seeds=2, top=2, seed=seed
        )
        echo(f"{name}: {options.tune_trials} trials on the validation split")
        train = choose_settings(
            data,
            config,
            out=options.out / TUNING_FOLDER / name,
            workers=min(chosen_workers(options.workers, options.tune_trials), config.lag),
            on_trial=trial_line(config, prefix=f"{name} "),
        )
        entries[name] = make_entry(train)
    goal = "the mean logarithm of R@1, joint R@1 and label mAP on the validation split"
    selection = f"{options.tune_trials} trials of `unialign tune` for each objective, by {goal}"
    return CompareConfig(data=data, entries=entries, selection=selection, **settings)
