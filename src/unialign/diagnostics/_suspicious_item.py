"""Suspected faults of single items, which should be checked manually."""

from dataclasses import dataclass
from typing import Any, Literal

SuspicionKind = Literal["mispaired", "copy", "hub", "outlier"]


@dataclass(frozen=True)
class SuspiciousItem:
    """A suspected fault of an item.

    Attributes:
        kind: `mispaired`, `copy`, `hub` or `outlier`.
        key: key of the item.
        modalities: affected modalities of the item.
        value: strength, whose meaning depends on the kind (see `text`).
        text: the reason in words.
        partner: key of another item that is involved, or None.
        is_swap: for mispaired items, whether the item and its partner are probably swapped.
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
    """Suspected faults in a sample of items, the strongest of each kind first.

    Attributes:
        found: the suspected faults.
        items: number of items that were compared.
        untrusted: pairs of modalities whose true counterparts are too far apart to judge single items.
    """

    found: tuple[SuspiciousItem, ...]
    items: int
    untrusted: tuple[tuple[str, str], ...] = ()

    def of(self, kind: SuspicionKind) -> list[SuspiciousItem]:
        """Return the suspected faults of a kind."""
        return [one for one in self.found if one.kind == kind]
