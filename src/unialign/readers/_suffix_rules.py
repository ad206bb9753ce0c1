"""Match file names with suffix rules: the longest matching suffix is used, and the rest of the name is the item."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from unialign.errors import ConfigError, DataError
from unialign.readers._folder_files import by_suffix
from unialign.readers._item_records import kind_of_name, suffix_of

__all__ = ["Matched", "SuffixRules", "empty_modality", "rule_name", "suggested_rules"]

_NEAREST = 5
# Fraction of the items in which a suffix must occur to be suggested as a rule.
_SUGGESTED = 0.02


@dataclass
class Matched:
    """Files of the items.

    Attributes:
        files: item -> modality -> (priority, path); a smaller priority is preferred.
        left: paths that no rule matches.
        unused: paths of files with a smaller priority than another file of the same item.
    """

    files: dict[str, dict[str, tuple[int, str]]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def add(self, stem: str, modality: str, priority: int, path: str) -> None:
        own = self.files.setdefault(stem, {})
        before = own.get(modality)
        if before is None or priority < before[0]:
            own[modality] = (priority, path)
        if before is None:
            return
        if before[0] == priority:
            raise DataError(
                f"both {before[1]!r} and {path!r} are the {modality!r} of the item {stem!r}; remove or rename "
                "one of them"
            )
        self.unused.append(path if before[0] < priority else before[1])


class SuffixRules:
    def __init__(self, rules: Mapping[str, Sequence[str]]) -> None:
        owners: dict[str, tuple[str, int]] = {}
        for modality, suffixes in rules.items():
            for priority, suffix in enumerate(suffixes):
                other = owners.setdefault(suffix.lower(), (modality, priority))
                if other != (modality, priority):
                    raise ConfigError(f"the suffix {suffix!r} is in the rules of {other[0]!r} and of {modality!r}")
        # The longest suffix is tried first.
        self._owners = [(suffix, *owners[suffix]) for suffix in sorted(owners, key=lambda text: (-len(text), text))]

    def match(self, path: str) -> tuple[str, str, int] | None:
        lowered = path.lower()
        for suffix, modality, priority in self._owners:
            if lowered.endswith(suffix):
                stem = path[: len(path) - len(suffix)]
                if stem and not stem.endswith("/"):
                    return stem, modality, priority
        return None

    def double_suffixes(self, stems: Iterable[str]) -> list[str]:
        """Return the stems that also end with the suffix of a rule, such as `cat_fr.ogg` of the file
        `cat_fr.ogg.ogg`.
        """
        return [stem for stem in stems if self.match(stem) is not None]


def empty_modality(modality: str, rule: Sequence[str], paths: Sequence[str]) -> DataError:
    named = f"the rule {', '.join(map(repr, rule))} of {modality!r} matches no file"
    if not paths:
        return DataError(f"{named}; the folder has no files, so check its path")
    last = suffix_of(rule[0])
    near = [path for path in paths if last and path.endswith(last)] or list(paths)
    return DataError(f"{named}; there are {by_suffix(paths)}, such as {', '.join(map(repr, near[:_NEAREST]))}")


def suggested_rules(paths: Sequence[str]) -> dict[str, int]:
    """Return suffix -> number of files, for suffixes that would group files into items, such as `_fr.ogg` beside
    `.png`.
    """
    suffixes = Counter(suffix_of(path).lower() for path in paths)
    main = next(iter(sorted(suffixes, key=lambda suffix: (-suffixes[suffix], suffix))), "")
    # Stems that are probably names of items: those of all suffixes but the most frequent one, which may be used by
    # several modalities.
    stems = {path[: len(path) - len(suffix_of(path))] for path in paths if suffix_of(path).lower() != main}
    counts: Counter[str] = Counter()
    for path in paths:
        suffix = suffix_of(path)
        stem = path[: len(path) - len(suffix)]
        folder = stem.rfind("/") + 1
        cut = len(stem)
        while cut > folder and stem[:cut] not in stems:
            cut = max(stem.rfind(mark, folder, cut) for mark in "_-.")
        counts[(stem[cut:] if cut > folder else "") + suffix.lower()] += 1
    least = max(1, _SUGGESTED * max(counts.values(), default=0))
    return {suffix: count for suffix, count in counts.most_common() if count >= least and suffix}


def rule_name(suffix: str) -> str:
    """Return the name in a suffix, such as `desc_fr` in `_desc_fr.ogg`, or the kind of media if it has none."""
    stem = suffix[: len(suffix) - len(suffix_of(f"x{suffix}"))].strip("_-. ")
    return stem or kind_of_name(f"x{suffix}") or "NAME"
