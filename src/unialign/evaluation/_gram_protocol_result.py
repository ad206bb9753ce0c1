"""Result of the protocol `gram`: counts, and one entry per set of clips, direction, score and stage."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from unialign._plain_text import table_lines
from unialign.metrics import Interval

__all__ = ["GramEntry", "GramResult", "GramSet"]

_SCORES = ("centroid", "volume")


@dataclass(frozen=True)
class GramEntry:
    """Retrieval in one direction by one score.

    Attributes:
        direction: "text->joint" or "joint->text".
        score: "centroid", "volume" or a modality.
        stage: 1, or 2 after `rerank`.
        queries, gallery: number of queries with a correct answer, and of candidates.
        at_chance: number of queries for which the score is undefined, for the query itself or for its answer.
        chance: recall of a random order.
        metrics: "recall@K" and "median_rank", with 95 % intervals over clips.
        ranks: (queries,) rank of the best correct answer; with ties, the expected rank.
    """

    direction: str
    score: str
    stage: int
    queries: int
    gallery: int
    at_chance: int
    chance: Mapping[str, float]
    metrics: Mapping[str, Interval]
    ranks: Tensor = field(repr=False)


@dataclass(frozen=True)
class GramSet:
    """A set of clips.

    Attributes:
        clips, captions: number of clips (the gallery), and of captions that are used as queries.
        without_caption: number of clips without a caption, which are only candidates.
        empty: number of clips without any modality, which are at chance.
        present: modality -> number of clips that have it.
        entries: one entry per direction, score and stage.
    """

    clips: int
    captions: int
    without_caption: int
    empty: int
    present: Mapping[str, int]
    entries: tuple[GramEntry, ...]

    def entry(self, direction: str, score: str, stage: int = 1) -> GramEntry:
        """Return an entry; raise KeyError if there is none."""
        for entry in self.entries:
            if (entry.direction, entry.score, entry.stage) == (direction, score, stage):
                return entry
        raise KeyError((direction, score, stage))

    def best_single(self, direction: str) -> str:
        """Return the modality with the highest recall at the smallest cut-off on these clips."""
        singles = [e for e in self.entries if e.direction == direction and e.stage == 1 and e.score not in _SCORES]
        return max(singles, key=lambda entry: next(iter(entry.metrics.values())).estimate).score


@dataclass(frozen=True)
class GramResult:
    """Result of `gram_protocol`.

    Attributes:
        text_modality, joint: modality of the captions, and modalities of a clip.
        captions: "first" or "all".
        k: cut-offs of recall.
        items: N.
        sets: "all" and, if it was requested, "with-audio".
    """

    text_modality: str
    joint: tuple[str, ...]
    captions: str
    k: tuple[int, ...]
    items: int
    sets: Mapping[str, GramSet]

    def direction_name(self, direction: str) -> str:
        """Return the direction with the names of the modalities, such as "text->video+audio"."""
        joint = "+".join(self.joint)
        return f"{self.text_modality}->{joint}" if direction == "text->joint" else f"{joint}->{self.text_modality}"

    def text(self) -> str:
        """Return the table of all entries as plain text; recalls are in percent, with 95 % intervals."""
        head = ("clips", "direction", "score", "stage", *(f"R@{cut}" for cut in self.k), "median rank")
        return "\n".join(table_lines(head, list(self._rows())))

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for name, found in self.sets.items():
            for entry in found.entries:
                best = entry.score == found.best_single(entry.direction) and len(self.joint) > 1
                recalls = (_percent(entry.metrics[f"recall@{cut}"]) for cut in self.k)
                median = entry.metrics["median_rank"]
                yield (
                    name,
                    self.direction_name(entry.direction),
                    f"{entry.score} (best single)" if best else entry.score,
                    str(entry.stage),
                    *recalls,
                    f"{median.estimate:.1f} [{median.low:.1f}, {median.high:.1f}]",
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON types, without the ranks of the queries."""
        return {
            "text": self.text_modality,
            "joint": list(self.joint),
            "captions": self.captions,
            "k": list(self.k),
            "items": self.items,
            "sets": {
                name: {
                    "clips": found.clips,
                    "captions": found.captions,
                    "without_caption": found.without_caption,
                    "empty": found.empty,
                    "present": dict(found.present),
                    "best_single": {d: found.best_single(d) for d in dict.fromkeys(e.direction for e in found.entries)},
                    "entries": [_entry(entry) for entry in found.entries],
                }
                for name, found in self.sets.items()
            },
        }

    def __repr__(self) -> str:
        return self.text()


def _entry(entry: GramEntry) -> dict[str, Any]:
    return {
        "direction": entry.direction,
        "score": entry.score,
        "stage": entry.stage,
        "queries": entry.queries,
        "gallery": entry.gallery,
        "at_chance": entry.at_chance,
        "chance": dict(entry.chance),
        "metrics": {
            name: {"mean": value.estimate, "low": value.low, "high": value.high}
            for name, value in entry.metrics.items()
        },
    }


def _percent(value: Interval) -> str:
    return f"{100 * value.estimate:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"
