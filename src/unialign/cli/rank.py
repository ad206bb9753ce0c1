"""`unialign rank`: rank models by stored results, with intervals."""

import argparse

from unialign.cli._command import Command, add_out
from unialign.cli._settings import add_config_file, add_settings, given_settings
from unialign.config import RankConfig
from unialign.errors import ConfigError

_EXAMPLES = """\
  unialign rank ~/.cache/mteb/results
  unialign rank results --tasks FiQA2018 SciFact NFCorpus ArguAna --statistic borda
  unialign rank results --qrels qrels --out runs/rank

mteb stores one file per task, MODEL/REVISION/TASK.json. The ranking uses the tasks that all models have. Differences
are paired by task, tests are corrected for all pairs of models (Holm), and models that the scores cannot distinguish
form a group. With --qrels and the files TASK_predictions.json of mteb, queries are resampled instead of tasks."""


def run(options: argparse.Namespace) -> int:
    values = RankConfig.read(options.config).to_dict() if options.config else {}
    given = {key: value for key, value in given_settings(options, RankConfig).items() if key != "results" or value}
    if not options.results and not options.config:
        raise ConfigError("no folder is given; pass a folder with results, as in `unialign rank ~/.cache/mteb/results`")
    config = RankConfig.from_dict(values | given)

    from unialign.cli._rank import rank

    return rank(config, options.out)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="*", metavar="FOLDER", help="folders with mteb results")
    add_config_file(parser, "ranking")
    add_settings(parser, RankConfig, skip=("results",))
    add_out(parser, "rank")


COMMAND = Command(
    name="rank",
    summary="rank models by mteb results, with paired intervals and groups of models that cannot be distinguished",
    usage="FOLDER ... [options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
