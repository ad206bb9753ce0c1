"""`unialign decoder`: train a decoder of image embeddings, or look at what one makes of held-out ones."""

import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unialign._checks import check_integer
from unialign.cli._console import echo, parse_settings, shown
from unialign.data import encoder_fingerprint, load_dataset
from unialign.errors import ConfigError
from unialign.experiments import read_yaml
from unialign.generation import DecoderConfig, grid, load_decoder, read_thumbnails, train_decoder, write_png
from unialign.io import checked_path
from unialign.train import chosen_device

__all__ = ["run"]

_COLUMNS = 16
_SCALE = 2


def run(options: Namespace) -> int:
    return _train(options) if options.action == "train" else _sample(options)


def _train(options: Namespace) -> int:
    data, image, fingerprint, config = _settings(options)
    store = load_dataset(data)
    if fingerprint is not None:
        store.check_fingerprint(fingerprint)
    _refuse_others(options.out)
    started = time.perf_counter()
    fit = train_decoder(
        store, config, image=image, out=options.out, resume=options.resume, device=options.device, progress="auto"
    )
    # A finished run whose log is lost has nothing to tell of its steps.
    last = fit.history[-1] if fit.history else {"step": config.steps, "loss": float("nan")}
    weights = sum(p.numel() for p in fit.decoder.parameters())
    echo(
        f"decoder of {config.size} x {config.size} pixels, {weights / 1e6:.1f} million weights: step {last['step']}, "
        f"loss {last['loss']:.3f}, {time.perf_counter() - started:.0f} s"
    )
    echo(f"{shown(options.out / 'decoder')}; samples of held-out items: {_newest_grid(options.out)}")
    return 0


def _refuse_others(out: Path) -> None:
    """A folder with another kind of result is left alone; what a decoder's run is, `train_decoder` decides."""
    checked_path(out, "--out", error=ConfigError)
    if (out / "config.yaml").exists() and "decoder" not in read_yaml(out / "config.yaml"):
        raise ConfigError(f"{out} holds another kind of result, not a decoder; choose another --out")
    if out.is_dir() and not (out / "config.yaml").exists():
        others = sorted(
            entry.name for entry in out.iterdir() if entry.name not in ("checkpoints", "decoder", "log.jsonl")
        )
        if others:
            raise ConfigError(f"{out} holds no decoder's run but {others[0]}; choose another --out")


def _newest_grid(out: Path) -> str:
    grids = sorted(out.glob("samples-*.png"))
    return shown(grids[-1]) if grids else "none"


def _sample(options: Namespace) -> int:
    if options.data is None:
        raise ConfigError("name the data whose embeddings are decoded; --help has an example")
    check_integer("count", options.count, low=1)
    device = chosen_device(options.device)
    decoder, store = load_decoder(options.decoder, prior=options.prior, device=device), load_dataset(options.data)
    facts: Any = getattr(decoder, "metadata", {})
    source = facts.get("data") if isinstance(facts, Mapping) else None
    image = options.image or (source.get("image") if isinstance(source, Mapping) else None) or "image"
    rows = store.rows(options.split)
    rows = rows[store.present(image)[rows]]
    if len(rows) == 0:
        raise ConfigError(f"{store.name!r} has no item with {image!r} in the split {options.split!r}")
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), options.count)).round().astype(int)]
    identity = encoder_fingerprint(store, image)
    if decoder.input_spec.identity not in (None, identity):
        raise ConfigError(
            f"{image!r} of {store.name!r} (identity {identity[:12]}) is not what the decoder reads, embeddings of "
            f"{decoder.input_spec.encoder} (identity {str(decoder.input_spec.identity)[:12]}); name another column with --image"
        )
    embeddings = torch.from_numpy(store.array(image)[rows].astype(np.float32))
    made = decoder.generate(embeddings, seed=options.seed, steps=options.steps, guidance=options.guidance)
    true = read_thumbnails(store, image, rows, decoder.size)
    lines = []
    for start in range(0, len(rows), _COLUMNS):
        lines += [list(true[start : start + _COLUMNS]), list(made[start : start + _COLUMNS])]
    write_png(options.out, grid(lines, scale=_SCALE))
    echo(f"{len(rows)} items of {options.split!r}, true images above, made ones below: {shown(options.out)}")
    return 0


def _settings(options: Namespace) -> tuple[str, str, str | None, DecoderConfig]:
    """Data, column, fingerprint and configuration: the file's, if one is given, and over them the command line's."""
    settings: dict[str, Any] = {}
    source: dict[str, Any] = {}
    if options.config:
        raw = read_yaml(options.config)
        if not isinstance(raw.get("decoder"), Mapping) or not isinstance(raw.get("data"), Mapping):
            raise ConfigError(f"{options.config} is of no decoder: it needs `decoder` and `data`")
        settings, source = dict(raw["decoder"]), dict(raw["data"])
    given = {name: getattr(options, name) for name in ("network", "size", "steps", "seed")}
    settings |= {name: value for name, value in given.items() if value is not None} | parse_settings(options.set)
    data = options.data or source.get("path") or source.get("name")
    if data is None:
        raise ConfigError("name the data: a shipped data set or a store's folder; --help has an example")
    # Other data than the file's have another fingerprint.
    fingerprint = source.get("fingerprint") if options.data is None else None
    return str(data), options.image or source.get("image") or "image", fingerprint, DecoderConfig.from_dict(settings)
