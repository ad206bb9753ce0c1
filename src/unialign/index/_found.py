"""Results of a search."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, overload

from unialign._html import html_table


@dataclass(frozen=True)
class Hit:
    """An item that was found.

    Attributes:
        key: key of the item, unique in the index.
        name: readable name; the key if the item has no other.
        score: corrected score; only comparable within one search.
        probability: estimated probability that a row of the matched modality belongs to the query, in [0, 1]; None if
            it cannot be estimated, for example for rows of the query's own modality.
        quantile: fraction of unpaired calibration rows with a lower score, in [0, 1]; None without calibration.
        modality: modality with the highest row score.
        scores: modality -> corrected cosine, for the present target modalities.
        missing: modalities of the index that the item does not have.
        label: label of the item, or None.
        metadata: metadata of the item.
    """

    key: str
    name: str
    score: float
    probability: float | None
    quantile: float | None
    modality: str
    scores: Mapping[str, float]
    missing: tuple[str, ...]
    label: str | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Found(Sequence[Hit]):
    """The items of one search, best first.

    Attributes:
        hits: the items.
        exact: whether all candidates were compared.
        scanned: number of compared items.
        correction: method of the correction: `none`, `center`, `coral` or `center_csls`.
        seconds: stage -> seconds.
        warnings: sentences about candidates that were left out and about missing numbers.
        generation: generation of the index.
    """

    hits: tuple[Hit, ...]
    exact: bool
    scanned: int
    correction: str
    seconds: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    generation: int = 0

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, place: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[place]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the items, best first."""
        return tuple(hit.key for hit in self.hits)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "results": [asdict(hit) | {"missing": list(hit.missing)} for hit in self.hits],
            "exact": self.exact,
            "scanned": self.scanned,
            "correction": self.correction,
            "seconds": dict(self.seconds),
            "warnings": list(self.warnings),
            "generation": self.generation,
        }

    def _repr_html_(self) -> str:
        rows = [(hit.name, f"{hit.score:.3f}", hit.modality, ", ".join(hit.missing)) for hit in self.hits]
        return html_table(rows, head=("item", "score", "matched", "missing"), caption=f"{len(self)} items")
