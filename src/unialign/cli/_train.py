"""Implementation of `unialign train`."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from unialign.cli._anchors import with_anchor
from unialign.cli._console import shown
from unialign.cli._media import is_media
from unialign.cli._mixture_data import mixture_store, prepared_sources
from unialign.cli._quiet import progress_mode
from unialign.cli._start import Start
from unialign.cli._train_output import print_header, write_results
from unialign.config import TrainConfig
from unialign.data import EmbeddingStore
from unialign.distributed import init as join_job
from unialign.errors import ConfigError
from unialign.experiments import open_run_dir, open_store, prepare_data, run as run_once
from unialign.space import Space
from unialign.train import check_fit, chosen_device, fit, process_group_of, weights_digest


def train(
    sources: Sequence[str],
    fingerprint: str | None,
    config: TrainConfig,
    start: Start | None,
    options: argparse.Namespace,
) -> int:
    with join_job(backend="gloo" if options.device == "cpu" else "auto") as process:
        config, begin = started(config, start)
        if config.tune:
            from unialign.cli._train_encoders import train_encoders

            return train_encoders(sources, fingerprint, config, begin, options)
        data = process_group_of("auto").broadcast_from_rank0(lambda: _data(sources, config, begin, options))
        store = _opened(data, fingerprint, config, options)
        title = store.name if isinstance(data, dict) else data
        config, note = with_anchor(config, store.modalities)
        process_group_of("auto").broadcast_from_rank0(lambda: _check(store, config, begin, options))
        try:
            if process.rank > 0:
                fit(
                    store,
                    config,
                    out=options.out,
                    resume=options.resume,
                    device=options.device,
                    progress="none",
                    **begin,
                )
                return 0
            print_header(title, store.modalities, config, note, options.out, processes=process.world_size)
            record = run_once(
                store,
                config,
                options.out,
                split=options.split,
                resume=options.resume,
                device=options.device,
                progress=progress_mode(),
                **begin,
            )
        except KeyboardInterrupt:
            kept = f"a checkpoint is in {shown(options.out)}; run the same command again to continue"
            raise KeyboardInterrupt(f"interrupted; {kept}") from None
        write_results(title, store, config, record, options)
    return 0


def started(config: TrainConfig, start: Start | None) -> tuple[TrainConfig, dict[str, Any]]:
    """Return the settings, with those of the heads of the space as defaults, and the arguments of `fit`."""
    if start is None:
        return config, {}
    space = Space.from_pretrained(start.space)
    if start.weights is not None and weights_digest(space) != start.weights:
        raise ConfigError(
            f"the space {start.space} has different weights than when the run was made; restore it, or name another "
            "space with --init-from"
        )
    defaults: dict[str, Any] = {name: getattr(space, name) for name in ("dim", "head", "hidden", "input_norm")}
    if config.init == "ridge" and start.train is not None:
        defaults |= {"head": "linear", "input_norm": "standardize"}
    if start.train is None:
        defaults["frozen"] = space.frozen
    missing = {name: value for name, value in defaults.items() if name not in start.given}
    return config.override(missing), {"init_from": space, "train": start.train}


def _data(
    sources: Sequence[str], config: TrainConfig, begin: Mapping[str, Any], options: argparse.Namespace
) -> str | dict[str, str]:
    """Return the name or path of the data set that all processes open, or of the data set of each source of a mixture.
    Media are embedded first.
    """
    if options.mixture is not None:
        return prepared_sources(options.mixture, config, options)
    if is_media(options.data, options):
        from unialign.cli._embedded import embedded_store

        return embedded_store(sources, config, options, init_from=begin.get("init_from"))
    return prepare_data(sources, options.out, "run", id=options.id)


def _opened(
    data: str | dict[str, str], fingerprint: str | None, config: TrainConfig, options: argparse.Namespace
) -> EmbeddingStore:
    if isinstance(data, dict):
        return mixture_store(options.mixture, data, config)
    return open_store(data, config.modalities, fingerprint)


def _check(store: EmbeddingStore, config: TrainConfig, begin: Mapping[str, Any], options: argparse.Namespace) -> None:
    chosen_device(options.device)
    check_fit(store, config, out=options.out, resume=options.resume, **begin)
    open_run_dir(options.out, "run")
