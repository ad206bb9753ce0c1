"""Find the files of a folder that belong to one item, and their modalities.

Layouts: "suffixes" (the files of an item have one stem), "folders" (one subfolder per modality, equal stems), and
"classes" (one subfolder per class, one file per item). A part is one split, or the whole folder.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unialign._plain_text import count
from unialign.errors import ConfigError, DataError
from unialign.media import KINDS, Kind
from unialign.readers._folder_files import FolderFiles, by_suffix
from unialign.readers._item_records import SUFFIXES, ItemOptions, Layout, kind_of_name, suffix_of
from unialign.readers._splits import SPLIT_NAMES
from unialign.readers._suffix_rules import Matched, SuffixRules, empty_modality, rule_name, suggested_rules

__all__ = ["Arranged", "arranged", "parts_of"]

# A layout is derived from the files only if this fraction of the items has files of several modalities.
_MIN_SHARE = 0.5
_LISTED_BY_PATTERN = (".tar", ".parquet", ".csv", ".tsv", ".jsonl", ".arrow", ".h5ad", ".h5mu")
_ARRAYS = (".npy", ".npz", ".safetensors", ".h5", ".hdf5")


@dataclass(frozen=True)
class Arranged:
    """Items of a folder: `files` maps item -> modality -> path."""

    kinds: Mapping[str, Kind]
    files: Mapping[str, Mapping[str, str]]
    labels: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def arranged(found: FolderFiles, options: ItemOptions) -> Arranged:
    """Assign the files to items and modalities; raise an error unless exactly one layout fits."""
    parts = parts_of(found.paths)
    rests = [path[len(prefix) :] for prefix, paths in parts.items() for path in paths]
    layout, rules = _layout(found, rests, options)
    matched, labels, splits = Matched(), dict[str, str](), dict[str, str]()
    if "" not in parts:
        matched.left += [path for path in found.paths if f"{path.partition('/')[0]}/" not in parts]
    matcher = SuffixRules(rules if layout == "suffixes" else {})
    for prefix, paths in parts.items():
        for path in paths:
            place = _place(path[len(prefix) :], layout, rules, matcher)
            if place is None:
                matched.left.append(path)
                continue
            stem, modality, priority = place
            matched.add(prefix + stem, modality, priority, path)
            if layout == "classes":
                labels[prefix + stem] = stem.partition("/")[0]
            if prefix:
                splits[prefix + stem] = SPLIT_NAMES[prefix[:-1].lower()]
    for name, rule in rules.items():
        if not any(name in files for files in matched.files.values()):
            raise empty_modality(name, rule, found.paths)
    notes = [*found.notes, *_notes(matched, matcher, parts)]
    files = {stem: {name: path for name, (_, path) in own.items()} for stem, own in sorted(matched.files.items())}
    return Arranged(_kinds(rules, files, options), files, labels, splits, notes)


def parts_of(paths: Sequence[str]) -> dict[str, list[str]]:
    """Return the paths of each split if all top folders are splits, else all paths under ""."""
    # Ignore text files at the top level, such as README.txt.
    tops = {
        path.partition("/")[0] for path in paths if kind_of_name(path) if "/" in path or kind_of_name(path) != "text"
    }
    if len(tops) < 2 or not {top.lower() for top in tops} <= set(SPLIT_NAMES):
        return {"": list(paths)}
    parts: dict[str, list[str]] = {f"{top}/": [] for top in sorted(tops)}
    for path in paths:
        top, slash, _ = path.partition("/")
        if slash and f"{top}/" in parts:
            parts[f"{top}/"].append(path)
    return parts


def _layout(
    found: FolderFiles, rests: Sequence[str], options: ItemOptions
) -> tuple[Layout, Mapping[str, tuple[str, ...]]]:
    """Return the layout, and its rules: suffixes, or subfolders with a final slash."""
    if options.rules:
        return _given_layout(options)
    tops: dict[str, set[Kind]] = {}
    for path in rests:
        if kind := kind_of_name(path):
            tops.setdefault(path.partition("/")[0] + "/" if "/" in path else "", set()).add(kind)
    if not tops:
        raise _no_media(found)
    if tops.get("") == {"text"} and len(tops) > 2:
        del tops[""]  # text files next to the subfolders, such as README.txt
    kinds = set().union(*tops.values())
    by_folder: dict[str, tuple[str, ...]] = {top.rstrip("/"): (top,) for top in sorted(tops)}
    by_kind: dict[str, tuple[str, ...]] = {kind: SUFFIXES[kind] for kind in KINDS if kind in kinds}
    is_nested = "" not in tops and len(tops) > 1
    is_pure = is_nested and all(len(own) == 1 for own in tops.values())
    # Fraction of the items that would have several modalities.
    folders = _share(rests, "folders", by_folder) if is_pure else 0.0
    if options.layout != "auto":
        return options.layout, by_folder if options.layout == "folders" else by_kind
    if is_pure and len(kinds) == 1 and folders >= _MIN_SHARE:
        raise ConfigError(
            f"{found.folder}: the subfolders {', '.join(sorted(tops))} may be classes or modalities, since their files "
            "have the same names; pass layout='classes' or layout='folders' (--layout)"
        )
    if is_pure and folders >= _MIN_SHARE:
        return "folders", by_folder
    if is_nested and len(kinds) == 1:
        return "classes", by_kind
    if len(kinds) == 1 or _share(rests, "suffixes", by_kind) >= _MIN_SHARE:
        return "suffixes", by_kind
    raise _no_layout(found, rests)


def _no_media(found: FolderFiles) -> DataError:
    listed = [path for path in found.paths if suffix_of(path).lower() in _LISTED_BY_PATTERN]
    advice = ""
    if any(suffix_of(path).lower() in _ARRAYS for path in found.paths):
        advice = f"; if they are embeddings, pass the folder to: unialign train {found.folder}"
    elif listed:
        pattern = found.folder / "/".join("*" * listed[0].count("/")) / f"*{suffix_of(listed[0])}"
        advice = f"; for the items in these files, pass a pattern such as '{pattern}'"
    return DataError(f"{found.folder} has no media files; it has {by_suffix(found.paths) or 'no files'}{advice}")


def _given_layout(options: ItemOptions) -> tuple[Layout, Mapping[str, tuple[str, ...]]]:
    are_folders = {place.endswith("/") for places in options.rules.values() for place in places}
    if len(are_folders) > 1:
        raise ConfigError("rules must be all suffixes such as '.png', or all subfolders such as 'images/'")
    layout: Layout = "folders" if are_folders == {True} else "suffixes"
    if options.layout not in ("auto", layout):
        raise ConfigError(
            f"layout is {options.layout!r}, but the rules name {layout}; leave the layout out, or write subfolders as "
            "'images/' and suffixes as '.png'"
        )
    return layout, options.rules


def _share(rests: Sequence[str], layout: Layout, rules: Mapping[str, tuple[str, ...]]) -> float:
    modalities: dict[str, set[str]] = {}
    matcher = SuffixRules(rules if layout == "suffixes" else {})
    for path in rests:
        if place := _place(path, layout, rules, matcher):
            modalities.setdefault(place[0], set()).add(place[1])
    return sum(len(own) > 1 for own in modalities.values()) / max(1, len(modalities))


def _place(
    path: str, layout: Layout, rules: Mapping[str, tuple[str, ...]], matcher: SuffixRules
) -> tuple[str, str, int] | None:
    """Return the item, the modality and the priority; None if the path belongs to no item."""
    if layout == "suffixes":
        return matcher.match(path)
    kind = kind_of_name(path)
    stem = path[: len(path) - len(suffix_of(path))]
    if kind is None:
        return None
    if layout == "classes":
        return (stem, kind, 0) if "/" in path and kind in rules else None
    for name, folders in rules.items():
        for priority, folder in enumerate(folders):
            if path.startswith(folder):
                return stem[len(folder) :], name, priority
    return None


def _kinds(
    rules: Mapping[str, tuple[str, ...]], files: Mapping[str, Mapping[str, str]], options: ItemOptions
) -> dict[str, Kind]:
    seen: dict[str, Counter[Kind]] = {name: Counter() for name in rules}
    for own in files.values():
        for name, path in own.items():
            if kind := kind_of_name(path) or ("array" if suffix_of(path).lower() == ".npy" else None):
                seen[name][kind] += 1
    kinds: dict[str, Kind] = {}
    for name in rules:
        if name in options.kinds:
            kinds[name] = options.kinds[name]
        elif len(seen[name]) == 1:
            kinds[name] = next(iter(seen[name]))
        elif name in KINDS:
            kinds[name] = name
        else:
            what = " and ".join(seen[name]) or "an unknown kind"
            raise ConfigError(f"the files of {name!r} are of {what}; pass kinds={{{name!r}: ...}} (--kind {name}=...)")
    return kinds


def _notes(matched: Matched, matcher: SuffixRules, parts: Mapping[str, Sequence[str]]) -> list[str]:
    notes = []
    if matched.left:
        notes.append(f"no rule matches {count(len(matched.left), 'file')}: {by_suffix(matched.left)}")
    if matched.unused:
        notes.append(
            f"{count(len(matched.unused), 'file')} not used, since a file of higher priority has the same stem: "
            f"{by_suffix(matched.unused)}"
        )
    if double := matcher.double_suffixes(matched.files):
        notes.append(f"{count(len(double), 'item')} with a suffix twice, such as {double[0]!r}; rename their files")
    if len(parts) > 1:
        notes.append(f"the split is read from the folders {', '.join(parts)}")
    return notes


def _no_layout(found: FolderFiles, rests: Sequence[str]) -> DataError:
    rules = suggested_rules([path for path in rests if kind_of_name(path)])
    options = " ".join(f"--rule {rule_name(suffix)}={suffix}" for suffix in list(rules)[:12])
    return DataError(
        f"{found.folder} has {by_suffix(found.paths)}, and no layout is evident: fewer than half of the stems have "
        "files of several kinds. Name the modalities by the suffixes of their files, such as: unialign inspect "
        f"{found.folder} {options}"
    )
