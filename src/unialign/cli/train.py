"""`unialign train`: train one space, on one process or on all processes of a torchrun or SLURM job."""

import argparse
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import get_args

from unialign import registry
from unialign._checks import check_choice, suggestion
from unialign.cli._anchors import ANCHOR
from unialign.cli._command import Command, add_out, add_resume
from unialign.cli._items import add_item_options
from unialign.cli._media import EMBEDDING_SETTINGS, is_media
from unialign.cli._mixture import add_mixture_options, chosen_mixture
from unialign.cli._settings import add_config_file, add_settings, given_settings
from unialign.cli._sources import add_data, required_data
from unialign.cli._start import add_start, resolve_start
from unialign.cli.embed import add_encoders, chosen_names
from unialign.config import EmbedConfig, Split, TrainConfig, TuneMode, read_yaml
from unialign.data import list_datasets
from unialign.errors import ConfigError

_EXAMPLES = """\
  unialign train emoji --objective unialign --anchor all --epochs 60
  unialign train my-store/ --objective infonce --weight-decay 0.05 --set objective_options.temperature=0.1
  unialign train image.npy text.safetensors audio=run7/last_layer.npy
  unialign train emoji --set frozen.image=whiten          a space around frozen embeddings, for `unialign generate`
  unialign train stamps/ --rule image=.png --rule text=.txt            embeds media, then trains
  unialign train items.csv --encode image=package:efficientnet-lite0 --encode text=builtin:chars
  unialign train items.csv --encode image=builtin:conv --tune image=all --set tune.image.lr=1e-3 --augment basic
  unialign train my-store/ --init-from runs/train/space --train speech        add a modality to a trained space
  unialign train --source photos=photos-store/ --source sounds=sounds-store/ --weight photos=2 --mix blend
  unialign train emoji --resume required                  continue an interrupted run from its newest checkpoint
  torchrun --nproc-per-node 2 -m unialign train my-store/        two processes, one run (srun also works)"""


def run(options: argparse.Namespace) -> int:
    sources, fingerprint, config = resolve(options)
    settings = TrainConfig().to_dict() if options.config else training_settings(options)
    start = resolve_start(options, given=tuple(settings))

    from unialign.cli._train import train

    return train(sources, fingerprint, config, start, options)


def resolve(options: argparse.Namespace) -> tuple[tuple[str, ...], str | None, TrainConfig]:
    """Return sources, their required fingerprint (None for any) and the settings."""
    sources, fingerprint, config = tuple(options.data), None, TrainConfig()
    options.mixture = chosen_mixture(options)
    if options.config:
        written_for, written_on, config = _read(options.config)
        if config.tune and not sources and written_for is not None:
            # The features of a run that trains encoders are computed from its items.
            options.data = [written_for]
        if not sources and written_for is not None:
            sources, fingerprint = (written_for,), written_on
        if not sources and options.mixture is None:
            raise ConfigError(f"{options.config} has no data.path (its run used arrays in memory); pass the data")
    settings = training_settings(options)
    if options.init_from is not None and options.train is not None and settings.get("init") == "ridge":
        # The new heads are linear, whatever the heads of the space are.
        settings = {"head": "linear", **settings}
    if settings.get("objective", config.objective) != config.objective:
        # The options in the file belong to the objective in the file.
        settings = {"objective_options": {}, **settings}
    if is_media(options.data, options):
        _check_media(options)
    elif options.mixture is None:
        required_data(sources, "train emoji")
    config = config.override({f"tune.{name}.mode": mode for name, mode in tuned_modes(options.tuned).items()})
    config = _with_pattern_settings(config, settings).override(settings)
    if config.tune and options.mixture is not None:
        raise ConfigError(
            "--tune trains the encoders of one item table, but --source names several; use "
            "`unialign.fit(unialign.data.Mixture(...), ...)` in Python, or omit --tune"
        )
    if config.augment != "none" and not config.tune and is_media(options.data, options):
        raise ConfigError(
            f"augment={config.augment} changes the media of encoders that are trained, but all are frozen; add --tune "
            f"MODALITY=MODE, or omit --augment"
        )
    if config.tune:
        # A run that trains encoders has their names as settings.
        config = config.override(
            {f"encoders.{name}": encoder for name, encoder in chosen_names(options.encode).items()}
        )
    if config.tune and (options.encode or {"modalities", "encoders"} & {name.partition(".")[0] for name in settings}):
        fingerprint = None  # The features are those of other encoders.
    return sources, fingerprint, config


def _with_pattern_settings(config: TrainConfig, settings: Mapping[str, object]) -> TrainConfig:
    """Add an entry of `tune` for each modality in `settings` that only a pattern of `tune` matches."""
    for name in settings:
        modality = name.removeprefix("tune.").rpartition(".")[0]
        if not name.startswith("tune.") or not modality or modality in config.tune:
            continue
        if any(fnmatchcase(modality, key) for key in config.tune):
            config = config.override({f"tune.{modality}": config.tuning(modality).to_dict()})
    return config


def _check_media(options: argparse.Namespace) -> None:
    if options.id is not None:
        raise ConfigError("--id joins files of embeddings; for media use --id-column")
    chosen_names(options.encode)
    for source in options.data:
        if (Path(source) / "store.json").is_file():
            raise ConfigError(
                f"{source} is a store, which already contains features; omit --rule, --encode and --tune, or pass the "
                "media"
            )


def tuned_modes(entries: Sequence[str]) -> dict[str, str]:
    """Return modality or pattern -> mode of training its encoder."""
    found: dict[str, str] = {}
    for entry in entries:
        modality, sign, mode = entry.partition("=")
        if not (modality and sign and mode):
            raise ConfigError(f"--tune must have the form MODALITY=MODE, such as image=lora, got {entry!r}")
        check_choice("--tune mode", mode, get_args(TuneMode))
        if found.setdefault(modality, mode) != mode:
            raise ConfigError(f"--tune gives {modality!r} two modes; give one")
    return found


def add_training_settings(parser: argparse.ArgumentParser, *, anchor: str, skip: tuple[str, ...] = ()) -> None:
    parser.add_argument(
        "--anchor",
        metavar="NAME",
        help=f"modality to which all others are aligned, or `all` to align every pair (default: {anchor})",
    )
    add_settings(parser, TrainConfig, skip=skip, title="training settings")


def training_settings(options: argparse.Namespace) -> dict[str, object]:
    given = given_settings(options, TrainConfig)
    if options.anchor is None:
        return given
    if ANCHOR in given:
        raise ConfigError(f"--anchor and --set {ANCHOR} are the same setting; give only one of them")
    return {ANCHOR: options.anchor} | given


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    add_mixture_options(parser)
    add_item_options(parser)
    add_encoders(parser)
    parser.add_argument(
        "--tune",
        dest="tuned",
        action="append",
        default=[],
        metavar="MODALITY=MODE",
        help="train the encoder of a modality or pattern with the heads, repeatable: `last` (its last blocks), `lora` "
        "(low-rank matrices), `all` or `frozen`; --set tune.MODALITY.SETTING=VALUE changes a setting, such as lr "
        "(default: frozen)",
    )
    add_settings(parser, EmbedConfig, only=EMBEDDING_SETTINGS, title="embedding of media")
    add_config_file(parser, "run")
    parser.add_argument(
        "--objective",
        default=argparse.SUPPRESS,
        metavar="NAME",
        help=f"{', '.join(registry.names('objectives'))} (default: unialign)",
    )
    add_training_settings(
        parser, skip=("objective",), anchor="`all`, or the data's first modality if the objective needs a single anchor"
    )
    add_start(parser)
    parser.add_argument(
        "--split", default="test", choices=get_args(Split), help="split to evaluate at the end (default: test)"
    )
    add_resume(parser)
    add_out(parser, "train")


def _read(file: Path) -> tuple[str | None, str, TrainConfig]:
    raw = read_yaml(file)
    known, settings = ("data", "train", "init_from"), [entry.name for entry in TrainConfig.settings()]
    for key in raw:
        if key not in known:
            hint = suggestion(key, known, otherwise="expected `data` and `train`")
            hint = f"; did you mean `train.{key}`?" if key in settings else hint
            raise ConfigError(f"{file}: unknown key {key!r}{hint}")
    data = raw.get("data")
    fingerprint = data.get("fingerprint") if isinstance(data, Mapping) else None
    if not (isinstance(data, Mapping) and isinstance(fingerprint, str) and isinstance(raw.get("train"), Mapping)):
        raise ConfigError(f"{file}: expected the keys `data` and `train`, as in a config.yaml of `unialign train`")
    # A built-in data set can be loaded by name on any machine. A run on in-memory arrays has no path.
    source = data["name"] if data.get("name") in list_datasets() else data.get("items", data.get("path"))
    if source is not None and not isinstance(source, str):
        raise ConfigError(f"{file}: data.path must be the path of a store, got {source!r}")
    return source, fingerprint, TrainConfig.read(file, "train")


COMMAND = Command(
    name="train",
    summary="train one space, on embeddings or on media",
    usage="[DATA ...] [options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
    multiprocess=True,
)
