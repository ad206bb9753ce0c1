"""Write the results and the report of a single run, for `train` and `evaluate`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from unialign.cli._console import echo, shown
from unialign.config import CompareConfig
from unialign.data import THUMBNAILS, EmbeddingStore
from unialign.experiments import RunRecord, make_results, write_items, write_json
from unialign.report import text_table, write_report


def finish(
    folder: Path,
    config: CompareConfig,
    store: EmbeddingStore,
    record: RunRecord,
    *,
    command: Literal["train", "evaluate"],
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    (key,), (seed,) = config.entries, config.seeds
    results = make_results(config, store, {(key, seed): record}, command=command, settings=settings, out=folder)
    if record.evaluation.population is None:  # examples rank all items of the split, as the metrics do
        write_items(folder, store, config.split)
    else:
        for name in ("items.json", THUMBNAILS):
            (folder / name).unlink(missing_ok=True)
    write_json(folder / "results.json", results)
    report = write_report(folder)
    echo()
    echo(text_table(results))
    echo()
    echo(f"Report: {shown(report)}")
    return results
