"""`unialign compare`: compare several objectives over several seeds in one table."""

import argparse
from collections.abc import Mapping

from unialign import registry
from unialign._checks import check_choice, check_integer, suggestion
from unialign.cli._command import Command, add_out
from unialign.cli._settings import add_config_file, add_settings, given_settings, split_names
from unialign.cli._sources import add_data, required_data
from unialign.cli.train import add_training_settings, training_settings
from unialign.config import CLOSED_FORMS, FIXABLE, CompareConfig, TrainConfig
from unialign.errors import ConfigError

_EXAMPLES = """\
  unialign compare digits --objectives unialign infonce gram --seeds 0 1 2
  unialign compare image.npy text.npy --epochs 20
  unialign compare digits --objectives unialign infonce kernel_gcca --tune 20      20 trials for each objective
  unialign compare --config runs/demo/config.yaml --out runs/again"""
# Comparison settings with a command-line option; all others are training settings or are derived from the data.
_SETTINGS = ("seeds", "split", "resamples")
_OBJECTIVES = ("unialign", "infonce", "gram")


def run(options: argparse.Namespace) -> int:
    training = training_settings(options)
    TrainConfig.check(training)
    settings = {key: value for key, value in given_settings(options, CompareConfig).items() if key in _SETTINGS}
    CompareConfig.check(settings)
    if options.tune_trials is not None:
        _check_tune(options, training)
    file, objectives = None, split_names(options.objectives)
    if len(set(objectives)) < len(objectives):
        raise ConfigError(f"--objectives must not repeat a name, got {' '.join(objectives)}")
    if options.config:
        file = CompareConfig.read(options.config)
        objectives = objectives or list(file.entries)
        if missing := [name for name in objectives if name not in file.entries]:
            raise ConfigError(
                f"{options.config} has no entry {', '.join(missing)}; its entries are {', '.join(file.entries)}"
            )
    else:
        objectives = objectives or list(_OBJECTIVES)
        for name in objectives:
            _check_name(name)
    sources = required_data(options.data or ([] if file is None else [file.data]), "compare emoji")

    from unialign.cli._compare import new_comparison, repeated_comparison, run_comparison
    from unialign.experiments import prepare_data

    data = prepare_data(sources, options.out, "comparison", id=options.id)
    if options.tune_trials is not None:
        from unialign.cli._compare_tuned import tuned_comparison

        config = tuned_comparison(data, objectives, training, settings, options)
    elif file is None:
        config = new_comparison(data, objectives, training, settings)
    else:
        config = repeated_comparison(file, data, objectives, training, settings)
    return run_comparison(config, options.out, options.workers)


def _check_tune(options: argparse.Namespace, training: Mapping[str, object]) -> None:
    check_integer("--tune", options.tune_trials, low=1)
    if options.config:
        raise ConfigError("--tune chooses the settings of the entries, which --config has; omit one of them")
    if unknown := [name for name in training if name not in FIXABLE]:
        raise ConfigError(
            f"--tune searches {unknown[0]!r}, or uses its default; omit it. These settings can be fixed: "
            f"{', '.join(FIXABLE)}"
        )


def _check_name(name: str) -> None:
    if name not in CLOSED_FORMS and suggestion(name, CLOSED_FORMS):
        check_choice("objective", name, (*registry.names("objectives"), *CLOSED_FORMS))
    if name not in CLOSED_FORMS:
        try:
            registry.check("objectives", name)
        except ConfigError as error:
            raise ConfigError(f"{error}; `compare` also accepts the closed forms {', '.join(CLOSED_FORMS)}") from None


def add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=int, metavar="N", help="number of runs trained in parallel (default: number of cores)"
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    add_config_file(parser, "comparison")
    parser.add_argument(
        "--objectives",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help=f"objectives to compare: {', '.join(registry.names('objectives'))}; or closed forms, which are not "
        f"trained: {', '.join(CLOSED_FORMS)} (default: {' '.join(_OBJECTIVES)}). Objectives that need a contrastively "
        "trained start use InfoNCE for the first half of the steps, as published",
    )
    add_settings(parser, CompareConfig, only=_SETTINGS, title="comparison")
    add_training_settings(
        parser,
        anchor="`all`; the data's first modality for objectives that require a modality, such as gram",
        skip=("objective", "seed"),
    )
    parser.add_argument(
        "--tune",
        dest="tune_trials",
        type=int,
        metavar="N",
        help="choose the settings of each objective on the validation split by N trials of `unialign tune`, by the "
        "mean logarithm of R@1, joint R@1 and label mAP; given training settings are fixed (default: no search)",
    )
    add_workers(parser)
    add_out(parser, "compare")


COMMAND = Command(
    name="compare",
    summary="train several objectives with the same budget and seeds, and compare them by paired tests in one table",
    usage="[DATA ...] [options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
