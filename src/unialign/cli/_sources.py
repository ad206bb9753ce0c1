"""Read and check a command's data: a named data set, a store folder, or files of embeddings."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from unialign._checks import suggestion
from unialign.data import list_datasets
from unialign.errors import ConfigError, DataError


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the positional `DATA`."""
    parser.add_argument(
        "data",
        nargs="*",
        metavar="DATA",
        help=f"data set ({', '.join(list_datasets())}), store folder, or files of embeddings (.npz, .npy, "
        ".safetensors, .parquet) with the same items in the same order; NAME=FILE names a file's only matrix",
    )


def required_data(sources: Sequence[str], example: str) -> tuple[str, ...]:
    """Return the data sources after checking that each exists.

    Raises:
        ConfigError: no source is given.
        DataError: a source is neither a data set nor a path; the message suggests a name.
    """
    if not sources:
        raise ConfigError(f"name the data, such as `unialign {example}`, or give --config")
    check_sources(sources)
    return tuple(sources)


def check_sources(sources: Sequence[str]) -> None:
    """Raise DataError for the first source that is neither a named data set nor an existing path."""
    names = list_datasets()
    for source in sources:
        if not (source in names or _exists(source) or _exists(source.partition("=")[2])):
            known, hint = ", ".join(map(repr, names)), suggestion(source, names, otherwise="check the path")
            raise DataError(f"{source!r} is neither a shipped data set ({known}) nor a file or folder{hint}")


def _exists(path: str) -> bool:
    try:
        return path != "" and Path(path).exists()
    except (OSError, ValueError):  # null character or name too long: the reader raises a better message
        return True
