"""Published numbers of the benchmarks of the protocol `gram`, with their sources."""

import json
import re
from importlib.resources import files
from typing import Any

from unialign._checks import check_choice
from unialign.evaluation._gram_protocol_result import GramResult

__all__ = ["gram_benchmark", "gram_own_rows", "gram_published"]


def gram_published(benchmark: str) -> dict[str, Any]:
    """Return the published R@1 of a benchmark, in percent.

    Args:
        benchmark: "msrvtt", "didemo", "activitynet", "vatex" or "audiocaps".

    Returns:
        `benchmark`, `gallery` (number of clips of the test set), `note`, and `rows` with `model`, `text_to_clip`,
        `clip_to_text` (None if it was not published), `stages` (2 with a matching head; None if it is not stated),
        `gallery` (None if equal to the gallery of the test set), `source` and `printed`, whether the command prints the
        row.

    Raises:
        ConfigError: an unknown benchmark.
    """
    found = _file()
    check_choice("benchmark", benchmark, tuple(found["galleries"]))
    rows = [
        {
            "model": row["model"],
            "text_to_clip": row[benchmark][0],
            "clip_to_text": row[benchmark][1],
            "stages": row["stages"],
            "gallery": found["other_galleries"].get(row["source"], {}).get(benchmark),
            "source": found["sources"][row["source"]],
            "printed": row.get("printed", False),
        }
        for row in found["rows"]
        if benchmark in row
    ]
    return {
        "benchmark": benchmark,
        "gallery": found["galleries"][benchmark],
        "note": found["note"],
        "unit": found["unit"],
        "rows": rows,
    }


def gram_own_rows(result: GramResult, name: str) -> list[dict[str, Any]]:
    """Return rows in the form of `gram_published` for the joint scores and the best single modality."""
    rows = []
    for subset, found in result.sets.items():
        best = {entry.direction: found.best_single(entry.direction) for entry in found.entries}
        for score, stage in dict.fromkeys((entry.score, entry.stage) for entry in found.entries):
            if score in result.joint and score not in best.values():
                continue
            recalls = {
                entry.direction: 100 * entry.metrics["recall@1"].estimate
                for entry in found.entries
                if (entry.score, entry.stage) == (score, stage)
            }
            alone = f"{score} alone" if score in result.joint and len(result.joint) > 1 else score
            rows.append(
                {
                    "model": f"{name}, {alone}",
                    "text_to_clip": recalls.get("text->joint"),
                    "clip_to_text": recalls.get("joint->text"),
                    "stages": stage,
                    "gallery": found.clips,
                    "source": "this evaluation" if subset == "all" else "this evaluation, clips with audio",
                }
            )
    return rows


def gram_benchmark(name: str) -> str | None:
    """Return the benchmark that the name of a data set contains, such as "msrvtt" for "MSR-VTT test"."""
    plain = re.sub("[^a-z0-9]", "", name.lower())
    return next((benchmark for benchmark in _file()["galleries"] if benchmark in plain), None)


def _file() -> dict[str, Any]:
    text = files("unialign.evaluation").joinpath("gram_published.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
