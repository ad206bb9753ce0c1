"""Implementation of `unialign rank`."""

from pathlib import Path

from unialign._plain_text import repeat_command
from unialign.cli._console import echo, shown
from unialign.config import RankConfig
from unialign.experiments import open_run_dir, rank_models, read_mteb, write_json
from unialign.io import describe_environment, replace_file, write_yaml
from unialign.report import write_ranking_report


def rank(config: RankConfig, out: Path) -> int:
    table = read_mteb(
        config.results, models=config.models, tasks=config.tasks, splits=config.splits, qrels=config.qrels
    )
    ranking = rank_models(table, statistic=config.statistic, resamples=config.resamples, seed=config.seed)
    open_run_dir(out, "ranking")  # An earlier ranking is overwritten, since it takes only seconds to repeat.
    results = {
        "schema": 1,
        "kind": "ranking",
        **ranking.to_dict(),
        "scores": {
            task: dict(zip(table.models, column, strict=True))
            for task, column in zip(table.tasks, table.scores_MT.T.tolist(), strict=True)
        },
        "environment": describe_environment(),
        "reproduce": repeat_command("rank", out),
    }
    write_yaml(out / "config.yaml", config.to_dict())
    write_json(out / "results.json", results)
    replace_file(out / "log.txt", ranking.text() + "\n")
    write_ranking_report(out)
    echo(ranking.text())
    echo()
    echo(f"Report: {shown(out / 'report.html')}")
    return 0
