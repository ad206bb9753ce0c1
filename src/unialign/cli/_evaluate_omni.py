"""Implementation of `unialign evaluate --protocol omni`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unialign._plain_text import count, join_words, repeat_command
from unialign.cli._console import echo, shown
from unialign.cli._space_data import check_evaluation, store_for_space
from unialign.config import OmniConfig
from unialign.data import EmbeddingStore
from unialign.errors import DataError
from unialign.evaluation import OmniResult, omni
from unialign.experiments import describe_data, open_run_dir, write_json
from unialign.io import describe_environment, replace_file
from unialign.report import write_omni_report
from unialign.space import Space


def evaluate(config: OmniConfig, sources: Sequence[str], options: argparse.Namespace) -> int:
    """Measure the space, write the report, and return the exit status."""
    space, out = Space.from_pretrained(config.space), options.out
    chosen, split = config.modalities, config.split
    store, config = store_for_space(
        space, config, sources, options, "evaluation", modalities=chosen, split=split, thumbnails=None
    )
    names = [name for name in config.modalities or space.modalities if name in space.dims and name in store.columns]
    missing = [name for name in config.modalities or () if name not in names]
    if missing or len(names) < 2:
        raise DataError(
            f"{'the protocol needs at least two modalities' if not missing else join_words(missing) + ' is missing'}: "
            f"the space has {join_words(space.modalities)}, and the data have {join_words(store.columns)}"
        )
    check_evaluation(out, config)
    store = store.select(names)
    result = omni(
        store,
        space,
        pool=config.pool,
        k=config.k,
        split=config.split,
        sample=config.sample,
        resamples=config.resamples,
    )
    # An evaluation that fails leaves no settings, so that the corrected command can use the folder.
    open_run_dir(out, "evaluation", config.to_dict())
    write_json(out / "results.json", _results(config, store, result, out))
    replace_file(out / "log.txt", result.text() + "\n")
    report = write_omni_report(out)
    echo(f"{store.name}, {config.split} split, {count(result.items, 'item')}, {join_words(names)}")
    echo()
    echo(result.text())
    echo()
    echo(f"Report: {shown(report)}")
    return 0


def _results(config: OmniConfig, store: EmbeddingStore, result: OmniResult, out: Path) -> dict[str, Any]:
    return {
        "schema": 1,
        "environment": describe_environment(),
        "data": describe_data(store, split=config.split),
        "protocol": {
            "name": "omni",
            "pool": config.pool,
            "k": config.k,
            "sample": config.sample,
            "ties": "expected rank",
            "intervals": "bootstrap over items, fixed galleries",
            "resamples": config.resamples,
        },
        "reproduce": repeat_command("evaluate", out),
        "omni": {"space": Path(config.space).name, **result.to_dict()},
    }
