"""Add the results of a run to the metadata and the model card of its space."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unialign.io import finite
from unialign.space import Space

_ALSO = ("recall@5", "recall@10")


def describe_space(folder: Path, results: Mapping[str, Any]) -> None:
    space = Space.from_pretrained(folder)
    evaluation = _evaluation(results)
    if space.metadata.get("evaluation") != evaluation:
        space.metadata["evaluation"] = evaluation
        space.save_pretrained(folder)


def _evaluation(results: Mapping[str, Any]) -> dict[str, Any]:
    # An interval that cannot be computed is NaN.
    (summary,) = finite(results["summary"]).values()
    metrics = []
    for name, entry in results["metrics"].items():
        estimate = summary[name]
        if (entry.get("primary") or name in _ALSO) and estimate["mean"] is not None:
            values = {"value": estimate["mean"], "low": estimate["low"], "high": estimate["high"]}
            metrics.append({"name": entry["label"], "metric": name, **values})
    return {"split": results["data"]["split"], "items": results["data"]["test_items"], "metrics": metrics}
