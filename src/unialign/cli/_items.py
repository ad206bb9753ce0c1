"""Options that describe a source of items: a folder, a manifest, an archive or a saved item table."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unialign.errors import ConfigError

if TYPE_CHECKING:
    from unialign.items import Items

_VALUES = ("id", "group", "ids", "label", "split")


def add_item_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        nargs="*",
        metavar="SOURCE",
        help="folder of media, .csv, .tsv, .jsonl or .parquet manifest, tar archives ('shards/{000..099}.tar'), folder "
        "of a data set saved by Hugging Face datasets, .h5ad or .h5mu file, arrays, or the folder of an item table",
    )
    add_item_options(parser)


def add_item_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("items")
    group.add_argument(
        "--rule",
        action="append",
        default=[],
        metavar="MODALITY=PLACE",
        help="where the cells of a modality are: a suffix of files (image=.png), a subfolder (image=photos/), an "
        "extension in tar archives, or a column; separate several by commas, or repeat the option, in order of "
        "priority (default: derived from the source)",
    )
    group.add_argument(
        "--kind",
        action="append",
        default=[],
        metavar="MODALITY=KIND",
        help="image, text, audio, video or array (default: by suffix, content or name)",
    )
    group.add_argument("--reader", metavar="NAME", help="reader of the source (default: by content)")
    group.add_argument(
        "--layout",
        choices=("auto", "suffixes", "folders", "classes"),
        default="auto",
        help="layout of a folder: `suffixes`: the files of an item have one stem; `folders`: a subfolder per modality; "
        "`classes`: a subfolder per class (default: auto)",
    )
    group.add_argument(
        "--root",
        metavar="DIR",
        help="folder that the paths in a manifest are relative to (default: the folder of the manifest)",
    )
    for name in _VALUES:
        group.add_argument(f"--{name}-column", metavar="COLUMN", help=f"column with {_HELP[name]}")
    group.add_argument("--allow-absolute", action="store_true", help="accept paths outside --root")
    group.add_argument("--allow-truncated", action="store_true", help="use the complete members of a truncated archive")


_HELP = {
    "id": "the unique name of an item",
    "group": "groups, which share a split",
    "ids": "ids, which are equal for items that are never negatives of each other",
    "label": "classes",
    "split": "train, val or test",
}


def has_item_options(options: argparse.Namespace) -> bool:
    """Return whether an option was given that applies only to sources of items."""
    columns = any(getattr(options, f"{name}_column") is not None for name in _VALUES)
    return bool(options.rule or options.kind or options.reader or columns or options.layout != "auto")


def open_items(sources: Sequence[str], options: argparse.Namespace) -> "Items":
    """Open the table that the options describe.

    Raises:
        ConfigError: no source is given, or an option is malformed.
        DataError: see `Items.open`.
    """
    if not sources:
        raise ConfigError("no source is given; pass a folder, a manifest, an archive or an item table")

    from unialign.items import Items

    return Items.open(sources[0] if len(sources) == 1 else list(sources), **item_arguments(options))


def item_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `Items.open`."""
    rules = {name: tuple(places) for name, places in _pairs("--rule", options.rule).items()}
    kinds = _pairs("--kind", options.kind)
    if repeated := [name for name, values in kinds.items() if len(values) > 1]:
        raise ConfigError(f"--kind gives {repeated[0]!r} several kinds; give one")
    values = {name: getattr(options, f"{name}_column") for name in _VALUES}
    return {
        "reader": options.reader,
        "rules": rules or None,
        "kinds": {name: values[0] for name, values in kinds.items()} or None,
        "root": None if options.root is None else Path(options.root),
        "layout": options.layout,
        "allow_absolute": options.allow_absolute,
        "allow_truncated": options.allow_truncated,
        **values,
    }


def _pairs(option: str, entries: Sequence[str]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in entries:
        name, sign, text = entry.partition("=")
        values = [value for value in text.split(",") if value]
        if not (name and sign and values):
            raise ConfigError(f"{option} must have the form MODALITY=VALUE, got {entry!r}")
        found.setdefault(name, []).extend(values)
    return found
