"""`unialign probe`: classify items by the embeddings of a space."""

import argparse
import os
from pathlib import Path
from typing import Any, get_args

from unialign.cli._command import Command, add_device, add_out
from unialign.cli._items import add_item_options
from unialign.cli._media import EMBEDDING_SETTINGS
from unialign.cli._settings import add_config_file, add_settings, given_settings
from unialign.cli._sources import add_data, check_sources
from unialign.config import EmbedConfig, ProbeConfig, ProbeTask
from unialign.errors import ConfigError

_EXAMPLES = """\
  unialign probe runs/train/space emoji --task linear
  unialign probe runs/train/space emoji --task knn --k 5 10 20 50 --temperature 0.03 0.07 0.2 --modality text
  unialign probe runs/train/space photos/ --layout classes --task zero-shot --templates templates.txt
  unialign probe runs/train/space my-store/ --task zero-shot --labels cat dog ship

`zero-shot` compares the items with the names of their classes, which the text encoder of the space encodes. `linear`
and `knn` train on the split `train`, choose their settings on `val`, and are tested once on `test`. DATA is a store, a
data set or files of features; or media (with --rule, --kind, --layout, --reader, --label-column, or the folder of an
item table), which the encoders of the space encode into `store/` of --out."""

# Settings of some tasks only.
_TASKS_OF = {
    "templates": ("zero-shot",),
    "split": ("zero-shot",),
    "input": ("linear", "knn"),
    "C": ("linear",),
    "k": ("knn",),
    "temperature": ("knn",),
}


def run(options: argparse.Namespace) -> int:
    """Classify the items, write the report, and return the exit status."""
    values = ProbeConfig.read(options.config).to_dict() if options.config else {}
    sources = tuple(options.data) or tuple(filter(None, [values.get("data")]))
    given = given_settings(options, ProbeConfig) | _from_files(options)
    space = options.space or values.get("space")
    if space is None or not sources:
        raise ConfigError(
            "no space or no data is given; pass the space and the data, as in `unialign probe runs/train/space emoji "
            "--task linear`, or give --config"
        )
    if options.data:
        values["fingerprint"] = None  # The fingerprint in the file belongs to the data in the file.
    task = given.get("task", values.get("task"))
    if task is None:
        raise ConfigError(f"no task is given; add --task {' or '.join(get_args(ProbeTask))}")
    for name, tasks in _TASKS_OF.items():
        if name in given and task in get_args(ProbeTask) and task not in tasks:
            raise ConfigError(f"--{name} has no effect with --task {task}; it needs --task {' or '.join(tasks)}")
    config = ProbeConfig.from_dict(values | given | {"space": space, "data": sources[0]})
    check_sources(sources)

    from unialign.cli._probe import probe

    return probe(config, sources, options)


def _from_files(options: argparse.Namespace) -> dict[str, Any]:
    """Return the templates and names of classes, which may be in a file with one per line."""
    found: dict[str, Any] = {}
    if options.template_file is not None:
        found["templates"] = _lines(Path(options.template_file), "--templates")
    if options.class_names is not None:
        only = options.class_names[0]
        is_file = len(options.class_names) == 1 and os.path.isfile(only)
        found["labels"] = _lines(Path(only), "--labels") if is_file else options.class_names
    return found


def _lines(path: Path, option: str) -> list[str]:
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{option}: {path} cannot be read as text ({error}); expected one entry per line") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ConfigError(f"{option}: {path} is empty; expected one entry per line")
    return lines


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "space", nargs="?", metavar="SPACE", help="folder written by `Space.save_pretrained`, or a Hub id"
    )
    add_data(parser)
    add_config_file(parser, "probe")
    add_settings(parser, ProbeConfig, skip=("space", "data", "fingerprint", "templates", "labels"))
    parser.add_argument(
        "--templates",
        dest="template_file",
        metavar="FILE",
        help="zero-shot: text file with one prompt per line, with {} for the name of the class (default: a photo of a "
        "{}.)",
    )
    parser.add_argument(
        "--labels",
        dest="class_names",
        nargs="+",
        metavar="NAME",
        help="class names in the order of the class numbers, or a text file with one name per line (default: the class "
        "names of the data)",
    )
    add_item_options(parser)
    add_settings(parser, EmbedConfig, only=EMBEDDING_SETTINGS, title="embedding of media")
    add_device(parser)
    add_out(parser, "probe")


COMMAND = Command(
    name="probe",
    summary="classify items by a space: zero-shot from class names, linear and k-nearest-neighbor probes",
    usage="SPACE DATA --task TASK [options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
