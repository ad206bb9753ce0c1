"""`unialign repair`: remove the gap between modalities."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from unialign.cli._command import Command, add_out
from unialign.cli._settings import add_config_file, add_settings, given_settings
from unialign.cli._sources import check_sources
from unialign.config import RepairConfig
from unialign.errors import ConfigError

_EXAMPLES = """\
  unialign repair image.npy text.npy
  unialign repair my-store/ --out runs/repaired
  unialign repair runs/train/space emoji

Embeddings of a shared space often form one cone per modality, so a mixed index ranks rows of the query's own modality
first. The command compares no change, centering, covariance matching (CORAL) and, for an index, centering with CSLS
scores, on held-out items. --out contains `repair/` (for ua.correction.Repair.load), `repair.npz` (the affine maps) and
the repaired embeddings as a store `embeddings/`, or the repaired space as `space/`. If no method helps, no copy is
written. Files are read as by `unialign diagnose`. An earlier repair in --out is replaced."""


def run(options: argparse.Namespace) -> int:
    values = RepairConfig.read(options.config).to_dict() if options.config else {}
    given = {key: value for key, value in given_settings(options, RepairConfig).items() if key != "sources" or value}
    if not options.sources and not options.config:
        raise ConfigError(
            "no embeddings are given; pass files, a store, or a space and its data, as in `unialign repair "
            "embeddings.npz`, or give --config"
        )
    config = RepairConfig.from_dict(values | given)
    space, sources = split_space(config.sources)
    if space is not None and not sources:
        raise ConfigError(
            f"{space} is a space, so its features are needed too; pass them after the space, as in `unialign repair "
            f"{space} emoji`"
        )
    check_sources(sources)
    _check_out(options.out, config.sources)

    from unialign.cli._repair import repair_sources

    return repair_sources(config, space, sources, options.out)


def split_space(sources: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    first, *rest = sources
    try:
        is_space = (Path(first) / "config.json").is_file() and not (Path(first) / "store.json").exists()
    except (OSError, ValueError):
        is_space = False
    return (first, tuple(rest)) if is_space else (None, tuple(sources))


def _check_out(out: Path, sources: Sequence[str]) -> None:
    """Raise ConfigError if a source is in the results folder, whose files are replaced."""
    folder = out.resolve()
    for source in sources:
        paths = [Path(text) for text in (source, source.partition("=")[2]) if text]
        if any(path.exists() and folder in (path.resolve(), *path.resolve().parents) for path in paths):
            raise ConfigError(f"{source} is inside {out}, whose files are replaced; choose another --out")


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="files of embeddings, a store or a data set; or the folder of a space, followed by its data; NAME=FILE "
        "sets the name of a file's only matrix",
    )
    add_config_file(parser, "repair")
    add_settings(parser, RepairConfig, skip=("sources",))
    add_out(parser, "repair")


COMMAND = Command(
    name="repair",
    summary="remove the gap between modalities from embeddings or a space, without training",
    usage="FILE ... | STORE | SPACE DATA [options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
