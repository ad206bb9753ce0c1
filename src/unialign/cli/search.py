"""`unialign search`: find items by text, images, audio, other items or vectors."""

import argparse
from pathlib import Path

from unialign.cli._command import Command
from unialign.errors import ConfigError

_EXAMPLES = """\
  unialign search emoji --text "a red car"
  unialign search emoji --item hedgehog --source drawing speech --target text
  unialign search my-index --image car.png --minus-text winter --weight 1 0.5 -k 20 --where "has(audio) and price < 5"
  unialign search my-index --item hedgehog --json

SOURCE is the folder of an index (`unialign index`), a results folder of `demo`, `compare` or `train`, a store or a data
set; `emoji` uses the space in runs/demo if `unialign demo` was run. Several queries are combined into one, with the
weights of --weight in the order of the options; --minus-text and --minus-item subtract. Queries by text and files need
an encoder of the space; queries by items do not. Results are comparable across modalities, since the gap between them
is corrected; a terminal that supports images displays them."""


def run(options: argparse.Namespace) -> int:
    """Print the items that match, and return the exit status."""
    given = options.parts or []
    if not given:
        raise ConfigError("nothing to search for; add --text, --image, --audio, --item or --vector")
    if options.weight is not None and len(options.weight) != len(given):
        raise ConfigError(f"--weight has {len(options.weight)} values for {len(given)} parts of the query")
    if options.source is not None and not any(kind.endswith("item") for kind, _ in given):
        raise ConfigError("--source selects modalities of --item; add --item KEY")

    from unialign.cli._search import search

    return search(options)


class _Part(argparse.Action):
    """Append (kind, value) to `parts`, so that weights follow the order of the options."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        kind = (option or "").removeprefix("--")
        namespace.parts = [*(namespace.parts or []), (kind, values)]


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source_data", metavar="SOURCE", help="index, results folder, store or data set")
    parser.add_argument("--space", metavar="DIR", help="space of a store or data set")
    parser.add_argument("--id", metavar="NAME", help="array of ids in the files")
    group = parser.add_argument_group("query")
    group.set_defaults(parts=None)
    for option, metavar, text in (
        ("--text", "TEXT", "a text"),
        ("--image", "FILE", "an image"),
        ("--audio", "FILE", "a sound"),
        ("--video", "FILE", "a video"),
        ("--item", "KEY", "an item of the index"),
        ("--vector", "MODALITY=FILE.npy", "an embedding of a modality"),
        ("--minus-text", "TEXT", "a text to subtract"),
        ("--minus-image", "FILE", "an image to subtract"),
        ("--minus-item", "KEY", "an item to subtract"),
    ):
        group.add_argument(option, action=_Part, metavar=metavar, help=f"{text}; may be repeated", dest=f"_{option}")
    group.add_argument("--weight", type=float, nargs="+", metavar="W", help="weights of the parts (default: 1)")
    group.add_argument(
        "--source", nargs="+", metavar="MODALITY", help="modalities of --item to search with (default: all)"
    )
    group.add_argument(
        "--modality", metavar="NAME", help="modality of --text, --image or --audio, if several encode such media"
    )
    group = parser.add_argument_group("results")
    group.add_argument("-k", type=int, default=10, metavar="N", help="number of items (default: 10)")
    group.add_argument(
        "--target",
        nargs="+",
        default=["any"],
        metavar="MODALITY",
        help="modalities to search, `any` (default: compare with the mean of an item's rows) or `best` (its best row)",
    )
    group.add_argument(
        "--where", metavar="FILTER", help="filter, such as \"label = 'car' and has(audio) and price < 5\""
    )
    group.add_argument("--min-probability", type=float, metavar="P", help="leave out items with a smaller probability")
    group.add_argument(
        "--no-correction", action="store_true", help="compare cosines without correction of the modality gap"
    )
    group.add_argument("--json", action="store_true", help="print one JSON object per item")
    group.add_argument("--csv", type=Path, metavar="FILE", help="write the items to a file")
    group.add_argument("--no-images", action="store_true", help="do not show images in the terminal")


COMMAND = Command(
    name="search",
    summary="find items by text, images, audio, other items or vectors",
    usage="SOURCE (--text TEXT | --image FILE | --item KEY | ...) [options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
