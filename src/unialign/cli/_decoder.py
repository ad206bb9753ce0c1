"""Implementation of `unialign decoder`: train a decoder, or decode the embeddings of a split."""

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from unialign._checks import check_integer
from unialign.cli._console import echo, shown
from unialign.cli._quiet import progress_mode
from unialign.config import DecoderConfig
from unialign.data import encoder_fingerprint, load_dataset
from unialign.errors import ConfigError
from unialign.experiments import check_run_dir, open_store
from unialign.generation import grid, load_decoder, read_thumbnails, train_decoder, write_png
from unialign.train import chosen_device

_COLUMNS = 16
_SCALE = 2


def train(
    sources: Sequence[str], fingerprint: str | None, image: str, config: DecoderConfig, options: argparse.Namespace
) -> int:
    store = open_store(sources, None, fingerprint, id=options.id)
    check_run_dir(options.out, "decoder")
    started = time.perf_counter()
    fit = train_decoder(
        store,
        config,
        image=image,
        out=options.out,
        resume=options.resume,
        device=options.device,
        progress=progress_mode(),
    )
    # The log of a finished run may be missing or damaged.
    loss = fit.history[-1].get("loss") if fit.history else None
    shown_loss = f"{loss:.3f}" if isinstance(loss, float) else "unknown"
    weights = sum(p.numel() for p in fit.decoder.parameters())
    echo(
        f"decoder of {config.size} x {config.size} pixels, {weights / 1e6:.1f} million parameters: "
        f"step {config.steps}, loss {shown_loss}, {time.perf_counter() - started:.0f} s"
    )
    grids = sorted(options.out.glob("samples-*.png"))
    samples = shown(grids[-1]) if grids else "none"
    echo(f"{shown(options.out / 'decoder')}; samples of held-out items: {samples}")
    return 0


def sample(sources: Sequence[str], options: argparse.Namespace) -> int:
    check_integer("count", options.count, low=1)
    device = chosen_device(options.device)
    decoder, store = (
        load_decoder(options.decoder, prior=options.prior, device=device),
        load_dataset(sources, id=options.id),
    )
    facts: Any = getattr(decoder, "metadata", {})
    source = facts.get("data") if isinstance(facts, Mapping) else None
    image = options.image or (source.get("image") if isinstance(source, Mapping) else None) or "image"
    rows = store.rows(options.split)
    rows = rows[store.present(image)[rows]]
    if len(rows) == 0:
        raise ConfigError(f"{store.name!r} has no item with {image!r} in the split {options.split!r}")
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), options.count)).round().astype(int)]
    fingerprint = encoder_fingerprint(store, image)
    if decoder.input_spec.fingerprint not in (None, fingerprint):
        raise ConfigError(
            f"{image!r} of {store.name!r} (fingerprint {fingerprint[:12]}) does not match the decoder's input, "
            f"embeddings of {decoder.input_spec.encoder} (fingerprint {str(decoder.input_spec.fingerprint)[:12]}); "
            f"select another modality with --image"
        )
    embeddings = torch.from_numpy(store.array(image)[rows].astype(np.float32))
    generated = decoder.generate(embeddings, seed=options.seed, steps=options.steps, guidance=options.guidance)
    true = read_thumbnails(store, image, rows, decoder.size)
    lines = []
    for start in range(0, len(rows), _COLUMNS):
        lines += [list(true[start : start + _COLUMNS]), list(generated[start : start + _COLUMNS])]
    write_png(options.out, grid(lines, scale=_SCALE))
    echo(f"{shown(options.out)}: {len(rows)} items of the split {options.split!r}, true images above generated images")
    return 0
