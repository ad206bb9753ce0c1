"""Compute the chance level of retrieval: the R@1 of a random ranking, averaged over directions."""

import math
from collections.abc import Iterable, Mapping

__all__ = ["mean_chance"]

_JOINT = ("joint_recall@1", "joint_recall@1/volume")
_TO_JOINT = ("to_joint_recall@1/cosine", "to_joint_recall@1/centroid", "to_joint_recall@1/volume")


def mean_chance(directions: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    pairs: list[float] = []
    joint: list[float] = []
    to_joint: list[float] = []
    for name, values in directions.items():
        query, _, answer = name.partition("->")
        kind = joint if "+" in query else to_joint if "+" in answer else pairs
        kind.append(values.get("chance_recall@1", math.nan))
    found = {
        "recall@1": _mean(pairs),
        **dict.fromkeys(_JOINT, _mean(joint)),
        **dict.fromkeys(_TO_JOINT, _mean(to_joint)),
    }
    return {metric: chance for metric, chance in found.items() if math.isfinite(chance)}


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return math.fsum(known) / len(known) if known else math.nan
