"""Select example queries with a fixed rule, and collect the items that each objective retrieves.

Shapes: `N` items, `G` candidates (items that have the modality to retrieve), `D` dimension.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unialign._plain_text import join_words
from unialign.report._folder import ComparisonFolder, Items, TestRows
from unialign.report._images import EmbeddedImages
from unialign.report._model import ComparisonResults
from unialign.report._projection import spread

QUERIES = 8
TOP = 5
_TIE_TOLERANCE = 1e-12  # as in unialign.ops
RULE = (
    "The queries are evenly spaced over the test items, sorted by row number, and alternate between the directions. "
    "They are not selected manually."
)


class QueryDirection(NamedTuple):
    queries: tuple[str, ...]  # several modalities form one query
    answer: str


def directions(modalities: Sequence[str], with_images: set[str], anchor: str) -> list[QueryDirection]:
    """Choose anchor -> image, second image modality -> anchor, last modality -> image, others -> image."""
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
    """Return example queries, evenly spaced over the items that have all modalities and alternating between
    directions.
    """
    results, images = comparison.results, EmbeddedImages(comparison.thumbnails)
    cards = []
    if comparison.items is not None and spaces:
        ways = directions(results.data.modalities, comparison.thumbnails.modalities, results.anchor)
        complete_N = np.all([present_N for space in spaces.values() for present_N in space.present.values()], axis=0)
        order_N = np.argsort(comparison.items.rows, kind="stable")
        complete = order_N[complete_N[order_N]].tolist()
        chosen = [complete[i] for i in spread(len(complete), QUERIES)]
        # Alternate between directions, so that the examples of each direction cover the whole list. The page groups the
        # examples by direction.
        turns = sorted(range(len(chosen)), key=lambda i: (i % len(ways), i))
        items = comparison.items
        cards = [_card(results, items, images, spaces, ways[i % len(ways)], chosen[i]) for i in turns]
    return {"examples": cards, "example_rule": RULE, "example_share": share(results), "images": images.css}


def share(results: ComparisonResults) -> str:
    """Return a sentence about all queries, since the 8 examples are not representative."""
    known = [o for o in results.objectives.values() if math.isfinite(results.estimate(o.key, "recall@5").mean)]
    if not known:
        return ""
    values = join_words(
        f"{100 * results.estimate(o.key, 'recall@5').mean:.0f} %" + ("" if results.single else f" ({o.label})")
        for o in known
    )
    return f"Over all queries and directions, a correct answer is among the first 5 for {values} of the queries."


def _card(
    results: ComparisonResults,
    items: Items,
    images: EmbeddedImages,
    spaces: Mapping[str, TestRows],
    direction: QueryDirection,
    position: int,
) -> dict[str, Any]:
    rows, pool, positives = [], 0, 0
    ids_N = np.asarray(items.ids)
    for objective, space in spaces.items():
        candidates_G, score_G = _scores(space, direction, position)
        pool, positives = len(candidates_G), int((ids_N[candidates_G] == ids_N[position]).sum())
        rank = best_rank(score_G, ids_N[candidates_G], ids_N[position])
        first = candidates_G[np.argsort(-score_G, kind="stable")[:TOP]].tolist()
        answers = [
            {
                "name": items.names[n],
                "image": images.css_class(direction.answer, n),
                "correct": bool(ids_N[n] == ids_N[position]),
            }
            for n in first
        ]
        rows.append(
            {"label": results.objectives[objective].label, "rank": f"{rank:g}", "first": rank == 1, "answers": answers}
        )
    data, queries = results.data, direction.queries
    return {
        "query": "all others" if len(queries) > 1 else data.display_name(queries[0]),
        "parts": [{"label": data.display_name(q), "image": images.css_class(q, position)} for q in queries],
        "answer": data.display_name(direction.answer),
        "name": items.names[position],
        "pool": pool,
        "positives": positives,
        "rows": rows,
    }


def _scores(space: TestRows, direction: QueryDirection, position: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    query_D = np.sum([space.z[name][position] for name in direction.queries], axis=0)
    candidates_G = np.flatnonzero(space.present[direction.answer])
    return candidates_G, space.z[direction.answer][candidates_G] @ query_D / len(direction.queries)


def best_rank(score_G: NDArray[np.float64], ids_G: NDArray[np.int64], query_id: int) -> float:
    """Return the rank of the best correct answer; with ties, the expected rank, as in `unialign.metrics.retrieval`."""
    right_G = ids_G == query_id
    best = score_G[right_G].max()
    tied_G = np.abs(score_G - best) <= _TIE_TOLERANCE
    above = int((score_G > best + _TIE_TOLERANCE).sum())
    return 1 + above + int((tied_G & ~right_G).sum()) / (int((tied_G & right_G).sum()) + 1)
