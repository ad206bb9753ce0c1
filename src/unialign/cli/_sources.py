"""Read and check a command's data: a named data set, a store folder, or files of embeddings."""

import argparse
from collections.abc import Sequence
from glob import has_magic
from pathlib import Path

from unialign._datasets import list_datasets, unknown_source
from unialign.errors import ConfigError


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        nargs="*",
        metavar="DATA",
        help=f"data set ({', '.join(list_datasets())}), store folder, or files of embeddings (.npz, .npy, "
        ".safetensors, .parquet, .csv, .jsonl, .h5, ...), folders or 'patterns*' of part files, with the same "
        "items in the same order or with ids; NAME=FILE sets the name of a file's only matrix",
    )
    parser.add_argument(
        "--id",
        metavar="NAME",
        help="array or column of ids that joins the files (default: ids, or a common name such as id or key)",
    )


def required_data(sources: Sequence[str], example: str) -> tuple[str, ...]:
    if not sources:
        raise ConfigError(f"no data is given; pass the data, as in `unialign {example}`, or give --config")
    check_sources(sources)
    return tuple(sources)


def check_sources(sources: Sequence[str]) -> None:
    for source in sources:
        rest = source.partition("=")[2]
        if not (source in list_datasets() or _exists(source) or _exists(rest) or has_magic(source)):
            raise unknown_source(source)


def _exists(path: str) -> bool:
    try:
        return path != "" and Path(path).exists()
    except (OSError, ValueError):  # The path has a null character or is too long; the reader raises a clearer error.
        return True
