"""`unialign inspect`: list the content of a source of items, before anything is encoded."""

import argparse
from pathlib import Path

from unialign.cli._command import Command, add_out
from unialign.cli._items import add_item_source
from unialign.errors import ConfigError

_EXAMPLES = """\
  unialign inspect stamps/ --rule image=.png --rule text=.txt --rule speech=_desc.ogg
  unialign inspect items.csv --decode all --hash --save tables/items
  unialign inspect 'shards/{000..099}.tar' --fail-on broken

The command opens every file, decodes a sample, and lists broken cells, equal items and groups that cross the split.
--save writes an item table with groups and a split, which `unialign embed` and `unialign train` read."""


def run(options: argparse.Namespace) -> int:
    if not options.source:
        raise ConfigError(
            "no source is given; pass one, as in `unialign inspect stamps/ --rule image=.png --rule text=.txt`"
        )

    from unialign.cli._inspect import inspect_source

    return inspect_source(options)


def _decode(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of cells or `all`, got {text!r}")
    return int(text)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_item_source(parser)
    group = parser.add_argument_group("inspection")
    group.add_argument(
        "--decode",
        type=_decode,
        default=200,
        metavar="NUMBER",
        help="cells of each modality to decode, or `all` (default: 200)",
    )
    group.add_argument("--hash", action="store_true", help="read all files, to find equal ones")
    group.add_argument("--seed", type=int, default=0, help="seed of the sample and the suggested split (default: 0)")
    group.add_argument("--save", type=Path, metavar="DIR", help="folder for the item table with groups and a split")
    group.add_argument(
        "--fail-on",
        nargs="+",
        choices=("broken", "leak"),
        default=[],
        help="exit with status 1 if a cell is broken, or if a group crosses the split",
    )
    add_out(parser, "inspect")


COMMAND = Command(
    name="inspect",
    summary="list the content of a folder, manifest or archive, and find broken cells",
    usage="SOURCE ... [options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
