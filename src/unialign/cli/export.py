"""`unialign export`: write the modalities of a space as files for other runtimes."""

import argparse
from typing import get_args

from unialign.cli._command import Command, add_out
from unialign.cli._settings import split_names
from unialign.config import ExportFormat

_EXAMPLES = """\
  unialign export runs/train/space
  unialign export runs/train/space --modalities image text --format torch
  unialign export runs/train/space --encoders           with the built-in encoders

Each file maps any number of rows of float32 features to unit rows. io.json describes inputs, outputs and the encoders.
Every file is compared with the space before the folder is written."""


def run(options: argparse.Namespace) -> int:
    from unialign.cli._export import export

    names = None if options.modalities is None else split_names(options.modalities)
    return export(options.space, options.out, format=options.format, modalities=names, encoders=options.encoders)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("space", metavar="SPACE", help="folder written by `Space.save_pretrained`, or a Hub id")
    parser.add_argument(
        "--format",
        choices=get_args(ExportFormat),
        default="onnx",
        help="`onnx`, or `torch` for torch.export.load (default: onnx)",
    )
    parser.add_argument(
        "--modalities", nargs="+", action="extend", metavar="NAME", help="modalities to export (default: all)"
    )
    parser.add_argument(
        "--encoders",
        action="store_true",
        help="include the encoders, which must be built in; the inputs are then prepared media",
    )
    add_out(parser, "export", what="folder of the exported files; an earlier export is replaced")


COMMAND = Command(
    name="export",
    summary="write the modalities of a space as ONNX or torch.export files",
    usage="SPACE [options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
