"""`unialign index`: make, change and check the folder of an index."""

import argparse
from pathlib import Path

from unialign.cli._command import Command
from unialign.cli._items import add_item_options
from unialign.errors import ConfigError

_EXAMPLES = """\
  unialign index emoji --space runs/train/space --out my-index
  unialign index my-index --add more-store/ --on-conflict replace
  unialign index my-index --delete-where "label = 'spam'"
  unialign index my-index --verify
  unialign index my-index --compact --approximate hnsw

The first argument is data to index (a store, a data set, files of embeddings, a results folder of `train`, or media,
which the encoders of --space embed), or the folder of an index to change. Items keep the keys of the data; items that
are already indexed are skipped, so repeating a stopped command continues it. Without changes, the command describes the
index."""

_ACTIONS = (
    "add", "delete_where", "delete", "delete_listed", "calibrate", "compact", "approximate", "verify", "salvage",
    "stats",
)  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Make or change an index, and return the exit status."""
    is_index = (Path(options.data[0]) / "index.sqlite").exists()
    given = [name for name in _ACTIONS if getattr(options, name)]
    if is_index and (options.space or options.out):
        raise ConfigError(f"{options.data[0]} is an index; --space and --out apply only to new indexes")
    if is_index and options.without:
        raise ConfigError("--without leaves items out of a new index; use --delete-listed")
    if is_index and len(options.data) > 1:
        raise ConfigError(f"{options.data[0]} is an index; add other data with --add")
    if not is_index and given:
        raise ConfigError(
            f"--{given[0].replace('_', '-')} needs the folder of an index, but {options.data[0]} is not an index; "
            "make one with `unialign index DATA --out DIR`"
        )

    from unialign.cli._index import change_index, make_index

    return change_index(options) if is_index else make_index(options)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="+", metavar="DATA|INDEX", help="data to index, or the folder of an index")
    group = parser.add_argument_group("new index")
    group.add_argument("--space", metavar="DIR", help="space that embeds the data; not needed for embeddings")
    group.add_argument("--out", type=Path, metavar="DIR", help="folder of the index (default: runs/index)")
    group.add_argument(
        "--without", type=Path, metavar="FILE", help="leave out the items of a list, as with --delete-listed"
    )
    group.add_argument("--split", metavar="NAME", help="split of the data to index (default: all items)")
    group.add_argument("--id", metavar="NAME", help="array or column of ids in the files")
    group = parser.add_argument_group("changes")
    group.add_argument("--add", nargs="+", metavar="DATA", help="add items of a store, a data set or files")
    group.add_argument(
        "--on-conflict",
        choices=("error", "replace", "skip"),
        help="what to do with keys that are already indexed (default: skip for new indexes, error for --add)",
    )
    group.add_argument("--delete", nargs="+", metavar="KEY", help="delete items")
    group.add_argument("--delete-where", metavar="FILTER", help="delete the items that a filter selects")
    group.add_argument(
        "--delete-listed",
        type=Path,
        metavar="FILE",
        help="delete the items of a list: of `unialign diagnose --fix-list`, those with the action `remove`; of an "
        "export, all",
    )
    group.add_argument(
        "--calibrate", nargs="?", const="auto", metavar="METHOD", help="refit the correction of the modality gap"
    )
    group.add_argument("--compact", action="store_true", help="rewrite parts with deleted items")
    group.add_argument(
        "--approximate", choices=("hnsw", "ivf"), help="build an approximate index of candidates with faiss"
    )
    group.add_argument("--target", default="any", metavar="MODALITY", help="target of --approximate (default: any)")
    group = parser.add_argument_group("checks")
    group.add_argument("--verify", action="store_true", help="compare all files with their checksums")
    group.add_argument("--salvage", type=Path, metavar="DIR", help="copy all intact items to a new index")
    group.add_argument("--stats", action="store_true", help="describe the index as JSON")
    add_item_options(parser)


COMMAND = Command(
    name="index",
    summary="make, change and check an index for `unialign search` and `unialign serve`",
    usage="DATA --space DIR --out DIR | INDEX [options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
