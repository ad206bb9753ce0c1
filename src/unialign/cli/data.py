"""`unialign data`: prepare data sets from package registries, or from a folder of the user."""

import argparse
from pathlib import Path

from unialign.cli._command import Command

_EXAMPLES = """\
  unialign data list
  unialign data show tuxpaint
  unialign data prepare tuxpaint --out tables/tuxpaint
  unialign data prepare qabcs --source unpacked/usr/share/qabcs
  unialign data prepare gram:msrvtt --source msrvtt/
  unialign data drop my-store/ --keys fix.csv --out clean-store

`prepare` writes an item table that refers to the files in place, with groups of near-duplicates and a split by groups;
test sets of papers (`gram:NAME`, `vggsound`) keep their split. `unialign inspect`, `unialign embed`, `unialign train`
and `unialign evaluate --protocol gram` read the table. `drop` writes a store without the items of a list, such as that
of `unialign diagnose --fix-list`."""


def run(options: argparse.Namespace) -> int:
    from unialign.cli import _data

    if options.action == "list":
        return _data.show_all()
    if options.action == "show":
        return _data.show(options.name)
    if options.action == "drop":
        return _data.drop_items(options.name, options.keys, options.out)
    return _data.prepare_table(options.name, options.source, options.out, options.seed)


def _add_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="list all data sets", usage="unialign data list")
    show = actions.add_parser("show", help="describe a data set", usage="unialign data show NAME")
    show.add_argument("name", metavar="NAME", help="name of a data set")
    prepare = actions.add_parser(
        "prepare", help="write the item table of a data set", usage="unialign data prepare NAME [options]"
    )
    prepare.add_argument("name", metavar="NAME", help="name of a data set")
    prepare.add_argument(
        "--source", type=Path, metavar="DIR", help="folder of the data (default: the folder of the package, if any)"
    )
    prepare.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the table (default: tables/NAME, with - instead of :)"
    )
    prepare.add_argument("--seed", type=int, default=0, help="seed of the split (default: 0)")
    drop = actions.add_parser(
        "drop",
        help="write a store without the listed items",
        usage="unialign data drop STORE --keys FILE --out DIR",
    )
    drop.add_argument("name", metavar="STORE", help="folder of a store, data set or file of embeddings")
    drop.add_argument(
        "--keys",
        type=Path,
        required=True,
        metavar="FILE",
        help="list of items: of `unialign diagnose --fix-list`, those with the action `remove`; of an export, all",
    )
    drop.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the new store")


COMMAND = Command(
    name="data",
    summary="list and prepare data sets of package registries, and test sets of papers",
    usage="ACTION ...",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
