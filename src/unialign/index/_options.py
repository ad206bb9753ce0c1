"""Options of a search, checked once."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unialign._checks import check_choice, check_integer, check_number, has_surrogate, suggestion
from unialign.errors import ConfigError
from unialign.index._query_vectors import FUSES, Fuse

Unit = Literal["item", "row"]
MOST_RESULTS = 100_000


@dataclass(frozen=True)
class SearchOptions:
    """Checked options; see `Index.search`.

    Attributes:
        targets: modalities of the target.
        best: whether the score of an item is its largest row score.
    """

    k: int
    targets: tuple[str, ...]
    best: bool = False
    unit: Unit = "item"
    correction: Literal["auto", "none"] = "auto"
    fuse: Fuse = "mean"
    exact: bool | Literal["auto"] = "auto"
    deduplicate: float | None = None
    min_probability: float | None = None
    exclude: tuple[str, ...] = ()

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """Modalities whose rows have a common score."""
        return [self.targets] if self.unit == "item" else [(name,) for name in self.targets]


def search_options(
    modalities: tuple[str, ...],
    *,
    k: object,
    rerank_depth: object = None,
    target: str | Sequence[str] = "any",
    unit: Any = "item",
    correction: Any = "auto",
    fuse: Any = "mean",
    exact: Any = "auto",
    deduplicate: Any = None,
    min_probability: Any = None,
    exclude: Collection[str] = (),
) -> SearchOptions:
    """Check the options of a search; `k` is raised to `rerank_depth` if that is larger.

    Raises:
        ConfigError: an option is invalid.
    """
    check_integer("k", k, low=1, high=MOST_RESULTS)
    check_choice("unit", unit, ("item", "row"))
    check_choice("correction", correction, ("auto", "none"))
    check_choice("fuse", fuse, FUSES)
    if not isinstance(exact, bool):
        check_choice("exact", exact, ("auto", True, False))
    if deduplicate is not None:
        check_number("deduplicate", deduplicate, "a cosine in (0, 1], or None", lambda x: 0 < x <= 1)
    if min_probability is not None:
        check_number("min_probability", min_probability, "a number in [0, 1], or None", lambda x: 0 <= x <= 1)
    if isinstance(exclude, str):
        raise ConfigError(f"exclude must be a list of keys, got the string {exclude[:60]!r}; pass [{exclude[:60]!r}]")
    keys = tuple(exclude)
    for key in keys:
        if not isinstance(key, str) or has_surrogate(key):
            raise ConfigError(f"exclude must contain keys of items, which are strings; got {key!r}")
    assert isinstance(k, int)
    if rerank_depth is not None:
        check_integer("rerank_depth", rerank_depth, low=1, high=MOST_RESULTS)
        assert isinstance(rerank_depth, int)
        k = max(k, rerank_depth)
    targets = target_modalities(target, modalities)
    best = target == "best"
    return SearchOptions(k, targets, best, unit, correction, fuse, exact, deduplicate, min_probability, keys)


def target_modalities(target: str | Sequence[str], modalities: tuple[str, ...]) -> tuple[str, ...]:
    """Return the modalities of a target, in the order of the index: all for `any` and `best`."""
    if isinstance(target, str) and target in ("any", "best"):
        return modalities
    names = (target,) if isinstance(target, str) else tuple(target)
    for name in names:
        if name not in modalities:
            known = (*modalities, "any", "best")
            raise ConfigError(
                f"unknown target {name!r}; expected {', '.join(map(repr, known))}{suggestion(name, known)}"
            )
    if not names:
        raise ConfigError("target must name at least one modality")
    return tuple(name for name in modalities if name in names)
