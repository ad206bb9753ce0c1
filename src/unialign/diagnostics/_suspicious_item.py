"""Suspicions about single items, for a person to judge."""

from dataclasses import dataclass
from typing import Any, Literal

SuspicionKind = Literal["mispaired", "copy", "hub", "outlier"]


@dataclass(frozen=True)
class SuspiciousItem:
    """A suspicion about an item.

    Attributes:
        kind: `mispaired`, `copy`, `hub` or `outlier`.
        key: the item.
        modalities: its affected modalities.
        value: strength; its meaning depends on the kind (see `text`).
        text: the reason in words.
        partner: another item that belongs to the suspicion, or None.
        is_swap: for mispaired items, whether the partner has what belongs here and the other way around.
    """

    kind: SuspicionKind
    key: str
    modalities: tuple[str, ...]
    value: float
    text: str
    partner: str | None = None
    is_swap: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "key": self.key,
            "modalities": list(self.modalities),
            "value": self.value,
            "text": self.text,
            "partner": self.partner,
            "swap": self.is_swap,
        }


@dataclass(frozen=True, eq=False)
class SuspiciousItems:
    """Suspicions of a sample of items, the strongest of each kind first.

    Attributes:
        found: the suspicions.
        items: number of items that were compared.
        untrusted: pairs of modalities whose true counterparts are too far apart to judge single items.
    """

    found: tuple[SuspiciousItem, ...]
    items: int
    untrusted: tuple[tuple[str, str], ...] = ()

    def of(self, kind: SuspicionKind) -> list[SuspiciousItem]:
        """Return the suspicions of a kind."""
        return [one for one in self.found if one.kind == kind]
