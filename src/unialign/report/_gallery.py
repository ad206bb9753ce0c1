"""Select example queries by a fixed rule and collect each objective's answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unialign.report._folder import ComparisonFolder, Items, TestRows
from unialign.report._projection import spread

__all__ = ["RULE", "Example", "directions", "examples", "expected_rank"]

QUERIES = 8
TOP = 5
RULE = (
    "The queries are evenly spaced over the test items sorted by row number and take the directions in turn, "
    "without manual selection."
)


@dataclass(frozen=True)
class QueryDirection:
    queries: tuple[str, ...]  # several modalities are combined in one query
    answer: str


@dataclass(frozen=True)
class Answer:
    position: int
    correct: bool


@dataclass(frozen=True)
class ObjectiveAnswers:
    objective: str
    rank: str
    first: bool
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Example:
    """A query and each objective's answers among `pool` candidates."""

    position: int
    direction: QueryDirection
    pool: int
    rows: tuple[ObjectiveAnswers, ...]


def directions(modalities: Sequence[str], with_images: set[str], anchor: str) -> list[QueryDirection]:
    """Choose directions: anchor -> image, second image -> anchor, last modality -> image, all others -> image."""
    seen = [m for m in modalities if m in with_images]
    if anchor not in modalities:
        anchor = next((m for m in modalities if m not in seen), modalities[0])
    target = next((m for m in [*seen, *modalities] if m != anchor), modalities[0])
    second = next((m for m in [*seen, *modalities] if m not in (anchor, target)), target)
    last = next((m for m in reversed(modalities) if m not in (anchor, target, second)), anchor)
    others = tuple(m for m in modalities if m != target)
    wanted = [
        QueryDirection((anchor,), target),
        QueryDirection((second,), anchor),
        QueryDirection((last,), target),
        QueryDirection(others, target),
    ]
    return list(dict.fromkeys(wanted))


def examples(comparison: ComparisonFolder, items: Items, spaces: Mapping[str, TestRows]) -> list[Example]:
    """Collect answers to items evenly spaced over the list, in each direction in turn."""
    results = comparison.results
    ways = directions(results.data.modalities, comparison.thumbnails.modalities, results.anchor)
    complete = [n for n in np.argsort(items.rows, kind="stable") if all(_whole(s, int(n)) for s in spaces.values())]
    chosen = [int(complete[i]) for i in spread(len(complete), QUERIES)]
    # Directions take turns, so that each covers the whole list; examples are shown by direction.
    turns = sorted(range(len(chosen)), key=lambda i: (i % len(ways), i))
    return [_example(chosen[i], ways[i % len(ways)], spaces) for i in turns]


def _whole(space: TestRows, position: int) -> bool:
    return all(bool(np.any(z[position] != 0)) for z in space.z.values())


def _example(position: int, direction: QueryDirection, spaces: Mapping[str, TestRows]) -> Example:
    rows, pool = [], 0
    for objective, space in spaces.items():
        scores, present = _scores(space, direction, position)
        pool = int(present.sum())
        order = np.argsort(-scores, kind="stable")[: min(TOP, pool)]
        rank = expected_rank(scores, position)
        answers = tuple(Answer(int(n), int(n) == position) for n in order)
        rows.append(ObjectiveAnswers(objective, f"{rank:g}", rank == 1, answers))
    return Example(position, direction, pool, tuple(rows))


def _scores(space: TestRows, direction: QueryDirection, position: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    # Compute the mean cosine over several queries as one product with their sum.
    query_D = np.sum([space.z[name][position] for name in direction.queries], axis=0)
    present = space.present[direction.answer]
    scores = space.z[direction.answer] @ query_D / len(direction.queries)
    scores[~present] = -np.inf
    return scores, present


def expected_rank(scores: NDArray[np.float64], truth: int) -> float:
    """Compute the expected rank under ties: 1 + strictly better + tied / 2."""
    better = int((scores > scores[truth]).sum())
    tied = int((scores == scores[truth]).sum()) - 1
    return 1 + better + tied / 2
