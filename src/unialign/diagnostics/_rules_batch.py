"""Rules about the negatives of a training batch."""

from collections.abc import Iterator

from unialign.diagnostics import _limits as limits
from unialign.diagnostics._batch_neighbors import BatchNeighbors
from unialign.diagnostics._finding import Case, Rule, RuleTable, always
from unialign.diagnostics._format import number
from unialign.diagnostics._measure import Measurements


def has_similar_negatives(found: BatchNeighbors) -> bool:
    return found.close.mean >= limits.CLOSE_NEGATIVES and found.close_z >= limits.CLOSE_Z


def _similar_negatives(measured: Measurements) -> Iterator[Case]:
    found = {name: n for name, n in measured.neighbors.items() if has_similar_negatives(n)}
    if found:
        size = next(iter(found.values())).items
        listed = [
            f"{name} {number(n.close.mean)} (cosine of at least {n.close_cosine:.2f})" for name, n in found.items()
        ]
        ranges = [n.scales for n in found.values() if n.scales is not None]
        least, most = min(low for low, _ in ranges), max(high for _, high in ranges)
        yield Case(*found, size=size, listed=listed, least=least, most=most)


_SIMILAR = RuleTable(
    _similar_negatives,
    (
        Rule("similar_negatives", "note", always,
             "In a random batch of {size:,} items, a query has negatives that are more similar to it than chance "
             "explains: {listed:words}. Contrastive training repels them like all others.",
             "If similar items should stay close, reduce the weight of similar negatives with the option "
             "similarity_scale of UniAlign, InfoNCE and Sigmoid. With scales from {least:.1f} to {most:.1f}, close "
             "negatives keep between a half and a twentieth of their weight. Compare some of them and 0 on a "
             "validation split, as `unialign tune` does. Larger scales group similar items better, at the "
             "cost of retrieval."),
    ),
)  # fmt: skip

BATCH_TABLES = (_SIMILAR,)
