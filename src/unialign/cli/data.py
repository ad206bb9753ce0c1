"""`unialign data`: data sets that are installed from package registries, or that are in a folder of the user."""

import argparse
from pathlib import Path

from unialign.cli._command import Command

_EXAMPLES = """\
  unialign data list
  unialign data show tuxpaint
  unialign data prepare tuxpaint --out tables/tuxpaint
  unialign data prepare qabcs --source unpacked/usr/share/qabcs
  unialign data prepare gram:msrvtt --source msrvtt/

`prepare` writes an item table that refers to the files where they are, with groups of near-duplicates and a split by
groups; test sets of papers (`gram:NAME`, `vggsound`) keep their split. `unialign inspect`, `unialign embed`,
`unialign train` and `unialign evaluate --protocol gram` read the table."""


def run(options: argparse.Namespace) -> int:
    from unialign.cli import _data

    if options.action == "list":
        return _data.show_all()
    if options.action == "show":
        return _data.show(options.name)
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
        "--source", type=Path, metavar="DIR", help="folder of the data (default: that of the package, if there is one)"
    )
    prepare.add_argument("--out", type=Path, metavar="DIR", help="folder of the table (default: tables/NAME, - for :)")
    prepare.add_argument("--seed", type=int, default=0, help="seed of the split (default: 0)")


COMMAND = Command(
    name="data",
    summary="list and prepare data sets of package registries, and test sets of papers",
    usage="ACTION ...",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
