"""Published numbers of the benchmarks of the protocol `gram`, with their sources."""

import json
import re
from importlib.resources import files
from typing import Any

from unialign._checks import check_choice

__all__ = ["gram_benchmark", "gram_published"]


def gram_published(benchmark: str) -> dict[str, Any]:
    """Return the published R@1 of a benchmark, in percent.

    Args:
        benchmark: "msrvtt", "didemo", "activitynet", "vatex" or "audiocaps".

    Returns:
        `benchmark`, `gallery` (number of clips of the test set), `note`, and `rows` with `model`, `text_to_clip`,
        `clip_to_text` (None if it was not published), `stages` (2 with a matching head; None if it is not stated),
        `gallery` (None if it is that of the test set) and `source`.

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


def gram_benchmark(name: str) -> str | None:
    """Return the benchmark that the name of a data set contains, such as "msrvtt" for "MSR-VTT test"."""
    plain = re.sub("[^a-z0-9]", "", name.lower())
    return next((benchmark for benchmark in _file()["galleries"] if benchmark in plain), None)


def _file() -> dict[str, Any]:
    text = files("unialign.evaluation").joinpath("gram_published.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
