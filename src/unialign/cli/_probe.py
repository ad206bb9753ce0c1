"""Implementation of `unialign probe`.

Shapes: `N` items, `W` dimension of features, `D` dimension of the space.
"""

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign._plain_text import count, join_words, repeat_command
from unialign.cli._console import echo, shown
from unialign.cli._space_data import store_for_space
from unialign.config import ProbeConfig
from unialign.data import EmbeddingStore, RowReader
from unialign.errors import ConfigError, DataError
from unialign.experiments import open_run_dir, write_json
from unialign.io import describe_environment, replace_file, write_yaml
from unialign.items import SPLITS
from unialign.probes import ProbeResult, knn, linear, zero_shot
from unialign.report import write_probe_report
from unialign.space import Space, check_encoders

_BLOCK_ROWS = 4096


def probe(config: ProbeConfig, sources: Sequence[str], options: argparse.Namespace) -> int:
    started, out = time.perf_counter(), options.out
    open_run_dir(out, "probe")  # An earlier probe is overwritten, since it takes only a minute to repeat.
    space = Space.from_pretrained(config.space)
    if options.device != "auto":
        space = space.to(options.device)
    if config.modality not in space.modalities:
        raise ConfigError(
            f"the space has no modality {config.modality!r}; choose --modality {' or '.join(space.modalities)}"
        )
    store, config = store_for_space(
        space, config, sources, options, "probe", modalities=[config.modality], device=options.device
    )
    if config.modality not in store.columns:
        raise DataError(f"{config.data} has no modality {config.modality!r}; it has {join_words(store.columns)}")
    check_encoders(space, store)
    names = _names(store, config)
    result = _classified(space, store, config, names)
    seconds = time.perf_counter() - started
    _write(options, config, store, result, seconds)
    echo((out / "log.txt").read_text("utf-8").rstrip())
    echo()
    echo(f"{seconds:.0f} s. Report: {shown(out / 'report.html')}")
    return 0


def _names(store: EmbeddingStore, config: ProbeConfig) -> tuple[str, ...]:
    """Return the names of the classes by number."""
    largest = int(store.labels.max(initial=-1))
    if largest < 0:
        raise DataError(
            f"{config.data} has no labels; add an array or column of labels (for media: --label-column, or --layout "
            f"classes)"
        )
    names = config.labels or store.label_names
    if not names and config.task == "zero-shot":
        raise DataError(f"{config.data} has no names of its {largest + 1} classes; give them with --labels")
    if not names:
        return tuple(map(str, range(largest + 1)))
    if len(names) <= largest:
        raise ConfigError(f"--labels has {count(len(names), 'name')}, but the data have the classes 0 to {largest}")
    return names


def _classified(space: Space, store: EmbeddingStore, config: ProbeConfig, names: tuple[str, ...]) -> ProbeResult:
    present_N = store.present(config.modality)
    if config.task == "zero-shot":
        rows_n = store.rows(config.split)
        rows_n = rows_n[present_N[rows_n]]
        if not len(rows_n):
            found_n = np.flatnonzero(present_N)
            splits = [name for code, name in enumerate(SPLITS) if (store.split[found_n] == code).any()]
            raise DataError(
                f"no item of the split {config.split!r} of {config.data} has {config.modality!r}"
                + (f"; choose --split {' or '.join(splits)}" if splits else "")
            )
        return zero_shot(
            space,
            _rows(space, store, config.modality, rows_n),
            names,
            templates=config.templates,
            labels=store.labels[rows_n],
            modality=config.modality,
            text=config.text,
            inputs="embeddings",
            groups=store.groups[rows_n],
        )
    used_n = np.flatnonzero(present_N & (store.labels >= 0))
    if not len(used_n):
        raise DataError(f"no item of {config.data} has both {config.modality!r} and a label")
    of_space = space if config.input == "embeddings" else None
    z_nD = _rows(of_space, store, config.modality, used_n)
    y_n = np.array(names)[store.labels[used_n]]
    split_n, groups_n = store.split[used_n], store.groups[used_n]
    if config.task == "linear":
        C = config.C if len(config.C) > 1 else config.C[0]
        return linear(z_nD, y_n, split_n, C=C, groups=groups_n)
    return knn(z_nD, y_n, split_n, k=config.k, temperature=config.temperature, groups=groups_n)


@torch.no_grad()
def _rows(space: Space | None, store: EmbeddingStore, modality: str, rows_n: NDArray[np.int64]) -> Tensor:
    """Return the (n, D) embeddings, or without a space the (n, W) features."""
    reader, parts = RowReader(store.array(modality)), []
    for start in range(0, len(rows_n), _BLOCK_ROWS):
        x_bW = torch.from_numpy(reader.read(rows_n[start : start + _BLOCK_ROWS]))
        parts.append(x_bW.float() if space is None else space.encode({modality: x_bW})[modality].cpu())
    return torch.cat(parts)


def _write(
    options: argparse.Namespace, config: ProbeConfig, store: EmbeddingStore, result: ProbeResult, seconds: float
) -> None:
    out = options.out
    results: dict[str, Any] = {
        "schema": 1,
        "kind": "probe",
        "environment": describe_environment(),
        "data": {"name": store.name, "path": config.data, "fingerprint": store.fingerprint, "items": store.items},
        "space": config.space,
        **result.to_dict(resamples=config.resamples, seed=config.seed),
        "modality": config.modality,
        "input": config.input,
        "protocol": {"resamples": config.resamples, "seed": config.seed, "seconds": seconds},
        "reproduce": repeat_command("probe", out),
    }
    write_yaml(out / "config.yaml", config.to_dict())
    replace_file(out / "log.txt", result.text(resamples=config.resamples, seed=config.seed) + "\n")
    write_json(out / "results.json", results)
    write_probe_report(out)
