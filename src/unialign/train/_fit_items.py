"""From items to the store and the encoders of a run."""

import contextlib
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unialign._checks import suggestion
from unialign.config import EmbedConfig, ProgressMode, Resume, TrainConfig
from unialign.data import EmbeddingStore, Mixture
from unialign.embedding import chosen_encoders, embed_with, finished_features
from unialign.encoders import (
    Encoder,
    check_unchanged,
    chosen_device,
    default,
    load,
    module_settings_restored,
    own_encoder,
)
from unialign.errors import ConfigError, DataError
from unialign.items import Items
from unialign.space import Space
from unialign.train._media_data import MediaSource, encoder_facts
from unialign.train._process_group import ProcessGroup
from unialign.train._run_dir import FEATURES, TABLE, RunDir, check_run_arguments
from unialign.train._tuned_encoders import TunedEncoders

Choice = str | Mapping[str, Any] | Encoder


@dataclass(frozen=True)
class ItemOptions:
    """Arguments of `fit` that only items have."""

    encoders: Mapping[str, Choice] | None = None
    embedding: EmbedConfig | None = None
    accept_licenses: Collection[str] = ()
    init_from: Space | None = None


@contextlib.contextmanager
def opened_data(
    data: EmbeddingStore | Items | Mixture, config: TrainConfig, options: ItemOptions, *, on_step: object, **run: Any
) -> Iterator[tuple[EmbeddingStore, MediaSource | None]]:
    """Yield the store of features, and for items also their media and encoders, else None."""
    if isinstance(data, Mixture):
        with opened_data(data.table, config, options, on_step=on_step, **run) as (store, source):
            store = store.with_sampling(data.sampling)
            yield store, None if source is None else replace(source, store=store)
        return
    if isinstance(data, Items) and isinstance(config, TrainConfig):
        run["processes"].run_all_or_raise(
            lambda: check_run_arguments(run["out"], run["resume"], run["progress"], on_step)
        )
        with opened_items(data, config, options, **run) as source:
            yield source.store, source
        return
    given: dict[str, Any] = {}
    if isinstance(config, TrainConfig):
        given = {"tune": config.tune, "augment": config.augment != "none", "config.encoders": config.encoders}
    given |= {"encoders": options.encoders, "embedding": options.embedding}
    if used := [name for name, value in given.items() if value]:
        raise ConfigError(
            f"{used[0]} needs an item table, whose media are encoded, but the data are features; pass items, such as "
            f"`unialign.data.Items.open(...)`"
        )
    yield data, None


@contextlib.contextmanager
def opened_items(
    items: Items,
    config: TrainConfig,
    options: ItemOptions,
    *,
    out: str | os.PathLike[str] | None,
    resume: Resume,
    device: str | torch.device,
    progress: ProgressMode,
    processes: ProcessGroup,
) -> Iterator[MediaSource]:
    """Embed the items with the initial encoders on process 0; yield the items, the store and the encoders."""
    if out is None and processes.world_size > 1:
        raise ConfigError("several processes need out=, a folder that all of them can read, to train on items")
    table = processes.run_all_or_raise(lambda: check_items(items, config))
    embedding = EmbedConfig() if options.embedding is None else options.embedding
    choices = processes.run_all_or_raise(lambda: encoder_choices(table, config, options.encoders, options.init_from))
    with contextlib.ExitStack() as stack:
        stack.enter_context(module_settings_restored(_given_modules(config, choices)))
        encoders = processes.run_all_or_raise(
            lambda: created_encoders(table, config, choices, device=chosen_device(device))
        )
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()) if out is None else out)

        def embed() -> str:
            if out is not None:
                _check_earlier_run(folder, table, config, encoders, resume)
            store = finished_features(folder / FEATURES, table, encoders, embedding)
            if store is None:
                store = _embedded(table, encoders, folder, embedding, accept=options.accept_licenses, progress=progress)
            if out is not None:
                _save_table(table, folder / TABLE)
            return str(store.path)

        path = processes.broadcast_from_rank0(embed)
        yield MediaSource(table, EmbeddingStore.open(path), encoders, embedding)


def check_items(items: Items, config: TrainConfig) -> Items:
    """Return the items with the modalities of the run; raise the errors of settings that do not fit them."""
    table = items if config.modalities is None else items.select(config.modalities)
    if len(table.modalities) < 2:
        raise ConfigError(
            f"{items.name!r} has only the modality {table.modalities[0]!r}, but training needs at least two; name the "
            "others with rules"
        )
    _check_keys("tune", config.tune, table.modalities)
    tuned = [name for name in table.modalities if config.tuning(name).mode != "frozen"]
    if config.augment != "none" and not tuned:
        raise ConfigError(
            f"augment={config.augment!r} changes the media of encoders that are trained, but all are frozen; set tune, "
            f"or augment='none'"
        )
    for name in tuned:
        if name in config.frozen:
            raise ConfigError(
                f"frozen has {name!r}, whose features are only whitened, but tune trains its encoder; remove one of "
                f"them"
            )
        if config.head == "kernel":
            raise ConfigError(
                f"head='kernel' compares features with those of the training items, but tune changes the features of "
                f"{name!r}; use head='mlp' or 'linear'"
            )
    return table


def encoder_choices(
    items: Items, config: TrainConfig, given: Mapping[str, Choice] | None, init_from: Space | None
) -> dict[str, Choice]:
    """Return the encoder of each modality; those of `init_from` are the defaults."""
    if not isinstance(given, Mapping | None):
        raise ConfigError(f"encoders must be a mapping of modality to encoder, got {given!r:.80}")
    choices = {**config.encoders, **(given or {})}
    _check_keys("encoders", choices, items.modalities)
    chosen = {name: _choice(name, choices) for name in items.modalities}
    if isinstance(init_from, Space):
        missing = [name for name, found in chosen.items() if found is None and name in init_from.encoders]
        chosen |= {name: init_from.encoder(name) for name in missing}
    return {name: default(items.kinds[name]) if found is None else found for name, found in chosen.items()}


def _given_modules(config: TrainConfig, choices: Mapping[str, Choice]) -> list[nn.Module]:
    """Return the modules of the user that are trained themselves; other encoders are copied."""
    return [
        choice.module
        for name, choice in choices.items()
        if config.tuning(name).mode != "frozen" and isinstance(choice, Encoder) and choice.module is not None
    ]


def created_encoders(
    items: Items, config: TrainConfig, choices: Mapping[str, Choice], *, device: torch.device
) -> dict[str, Encoder]:
    """Encoders that are trained are not shared with other modalities."""
    tuned = [name for name in items.modalities if config.tuning(name).mode != "frozen"]
    made = {name: _made(found, device, is_tuned=name in tuned) for name, found in choices.items()}
    encoders: dict[str, Encoder] = {}
    shared = [name for name in made if name not in tuned]
    for names in ([name] for name in tuned):
        encoders |= _resolved(items, made, names, device)
    encoders |= _resolved(items, made, shared, device) if shared else {}
    _check_modules(encoders, tuned)
    for name in tuned:
        if (module := encoders[name].module) is not None:
            module.to(device)  # a module that was given may be on another device
    # Raise errors before hours of embedding; the features do not change.
    TunedEncoders({name: encoders[name] for name in tuned}, config)
    return {name: encoders[name] for name in items.modalities}


def _resolved(
    items: Items, choices: Mapping[str, str | Encoder], names: list[str], device: torch.device
) -> dict[str, Encoder]:
    return chosen_encoders(items.select(names), {name: choices[name] for name in names}, device=device, offline=None)


def _made(choice: Choice, device: torch.device, *, is_tuned: bool) -> str | Encoder:
    if isinstance(choice, str):
        return choice
    if isinstance(choice, Mapping):
        return load(choice, device=device)
    if is_tuned:
        return own_encoder(choice)
    check_unchanged(choice)
    return choice


def _choice(name: str, choices: Mapping[str, Choice]) -> Choice | None:
    keys = [name] if name in choices else [key for key in choices if fnmatchcase(name, key)]
    if len(keys) > 1:
        raise ConfigError(f"the modality {name!r} matches both {keys[0]!r} and {keys[1]!r} of the encoders")
    return choices[keys[0]] if keys else None


def _check_keys(what: str, keys: Collection[str], names: Collection[str]) -> None:
    for key in keys:
        if not any(fnmatchcase(name, key) or name == key for name in names):
            hint = suggestion(key, names, otherwise=f"the modalities are {', '.join(names)}")
            raise ConfigError(f"{what} has the modality {key!r}, which this run does not train{hint}")


def _check_modules(encoders: Mapping[str, Encoder], tuned: Collection[str]) -> None:
    parameters = {
        name: set() if encoder.module is None else set(map(id, encoder.module.parameters()))
        for name, encoder in encoders.items()
    }
    for name in tuned:
        others = [other for other in encoders if other != name and parameters[other] & parameters[name]]
        if others:
            raise ConfigError(
                f"the encoders of {name!r} and {others[0]!r} have the same module or parameters, but tune trains those "
                f"of {name!r}; pass a module for each, or the name of the encoder"
            )


def _check_earlier_run(
    folder: Path, items: Items, config: TrainConfig, encoders: Mapping[str, Encoder], resume: Resume
) -> None:
    """Raise errors before hours of embedding."""
    initial = {name: encoders[name] for name in items.modalities if config.tuning(name).mode != "frozen"}
    RunDir(folder, config, facts=encoder_facts(initial), settings={}).check_before_embedding(resume)


def _embedded(
    items: Items,
    encoders: Mapping[str, Encoder],
    folder: Path,
    config: EmbedConfig,
    *,
    accept: Collection[str],
    progress: ProgressMode,
) -> EmbeddingStore:
    # A new folder without content is deleted after an error, such as a missing package.
    is_new = not folder.exists()
    try:
        return embed_with(
            config, items, encoders, folder / FEATURES, resume="auto", accept_licenses=accept, progress=progress
        ).store
    except BaseException:
        if is_new:
            _discard_empty(folder)
        raise


def _discard_empty(folder: Path) -> None:
    """Delete a new folder in which no part of the features was finished."""
    parts = folder / f".{FEATURES}.embed"
    if (
        not folder.is_dir()
        or any((parts / "parts").glob("*/*"))
        or [path for path in folder.iterdir() if path != parts]
    ):
        return
    with contextlib.suppress(OSError):
        for path in sorted(parts.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        if parts.exists():
            parts.rmdir()
        folder.rmdir()


def _save_table(items: Items, path: Path) -> None:
    """Keep the table, from which the run can be repeated."""
    if path.exists():
        with contextlib.suppress(DataError):
            if Items.load(path).fingerprint == items.fingerprint:
                return
    items.save(path, overwrite="replace")
