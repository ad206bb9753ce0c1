"""Select example queries by a fixed rule and collect each objective's answers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unialign.report._folder import ComparisonFolder, TestRows
from unialign.report._images import EmbeddedImages
from unialign.report._model import ComparisonResults
from unialign.report._projection import spread

QUERIES = 8
TOP = 5
RULE = (
    "The queries are evenly spaced over the test items sorted by row number and take the directions in turn, "
    "without manual selection."
)


class QueryDirection(NamedTuple):
    queries: tuple[str, ...]  # several modalities are combined in one query
    answer: str


def directions(modalities: Sequence[str], with_images: set[str], anchor: str) -> list[QueryDirection]:
    """Choose directions: anchor -> image, second image -> anchor, last modality -> image, all others -> image."""
    seen = [m for m in modalities if m in with_images]
    if anchor not in modalities:
        anchor = next((m for m in modalities if m not in seen), modalities[0])
    target = next((m for m in [*seen, *modalities] if m != anchor), modalities[0])
    second = next((m for m in [*seen, *modalities] if m not in (anchor, target)), target)
    last = next((m for m in reversed(modalities) if m not in (anchor, target, second)), anchor)
    others = tuple(m for m in modalities if m != target)
    wanted = [((anchor,), target), ((second,), anchor), ((last,), target), (others, target)]
    return list(dict.fromkeys(QueryDirection(*direction) for direction in wanted))


def example_section(comparison: ComparisonFolder, spaces: Mapping[str, TestRows]) -> dict[str, Any]:
    """Return the cards of the examples, their rule, and the style sheet of their images.

    The queries are evenly spaced over the items that have all modalities, in each direction in turn.
    """
    results, images = comparison.results, EmbeddedImages(comparison.thumbnails)
    cards = []
    if comparison.items is not None and spaces:
        ways = directions(results.data.modalities, comparison.thumbnails.modalities, results.anchor)
        complete_N = np.all([present_N for space in spaces.values() for present_N in space.present.values()], axis=0)
        order_N = np.argsort(comparison.items.rows, kind="stable")
        complete = order_N[complete_N[order_N]].tolist()
        chosen = [complete[i] for i in spread(len(complete), QUERIES)]
        # Directions take turns, so that each covers the whole list; examples are shown by direction.
        turns = sorted(range(len(chosen)), key=lambda i: (i % len(ways), i))
        names = comparison.items.names
        cards = [_card(results, names, images, spaces, ways[i % len(ways)], chosen[i]) for i in turns]
    return {"examples": cards, "example_rule": RULE, "images": images.css}


def _card(
    results: ComparisonResults,
    names: Sequence[str],
    images: EmbeddedImages,
    spaces: Mapping[str, TestRows],
    direction: QueryDirection,
    position: int,
) -> dict[str, Any]:
    rows, pool = [], 0
    for objective, space in spaces.items():
        score_N, present_N = _scores(space, direction, position)
        pool = int(present_N.sum())
        rank = expected_rank(score_N, position)
        first = np.argsort(-score_N, kind="stable")[: min(TOP, pool)].tolist()
        answers = [
            {"name": names[n], "image": images.css_class(direction.answer, n), "correct": n == position} for n in first
        ]
        rows.append(
            {"label": results.objectives[objective].label, "rank": f"{rank:g}", "first": rank == 1, "answers": answers}
        )
    data, queries = results.data, direction.queries
    return {
        "query": "all others" if len(queries) > 1 else data.display_name(queries[0]),
        "parts": [{"label": data.display_name(q), "image": images.css_class(q, position)} for q in queries],
        "answer": data.display_name(direction.answer),
        "name": names[position],
        "pool": pool,
        "rows": rows,
    }


def _scores(space: TestRows, direction: QueryDirection, position: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the mean cosine of the queries with each candidate, -inf for absent ones, and the candidates' presence."""
    query_D = np.sum([space.z[name][position] for name in direction.queries], axis=0)
    present_N = space.present[direction.answer]
    score_N = space.z[direction.answer] @ query_D / len(direction.queries)
    return np.where(present_N, score_N, -np.inf), present_N


def expected_rank(scores: NDArray[np.float64], truth: int) -> float:
    """Compute the expected rank under ties: 1 + strictly better + tied / 2."""
    better = int((scores > scores[truth]).sum())
    tied = int((scores == scores[truth]).sum()) - 1
    return 1 + better + tied / 2
