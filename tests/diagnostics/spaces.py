"""Generate embeddings that are noisy copies of one latent vector per item, with one planted fault."""

import numpy as np

from unialign.data import open_collection
from unialign.diagnostics import diagnose
from unialign.diagnostics._row_alignment import measure_row_alignment
from unialign.diagnostics._row_offsets import find_row_offsets
from unialign.diagnostics._sampling import collect_sample, collect_windows, draw_items, sample_size, window_rows
from unialign.diagnostics._scan import scan_modality

ITEMS, DIM = 400, 32


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def healthy(names=("image", "text", "audio"), *, items=ITEMS, dim=DIM, noise=0.6, seed=0):
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((items, dim))
    return {name: unit(latent + noise * rng.standard_normal((items, dim))) for name in names}


def collapsed(name="text"):
    """Return embeddings in which the rows of one modality are nearly equal."""
    space = healthy()
    space[name] = unit(0.02 * space[name] + unit(np.ones((1, DIM))))
    return space


def shifted(name="audio", *, by=1.5):
    space = healthy()
    space[name] = unit(space[name] + by * np.eye(DIM)[0])
    return space


def rotated(name="audio"):
    space = healthy()
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((DIM, DIM)))
    space[name] = (space[name] @ turn).astype(np.float32)
    return space


def shuffled(name="audio"):
    space = healthy()
    space[name] = space[name][np.random.default_rng(1).permutation(ITEMS)]
    return space


def checked(sources, **options):
    return diagnose(sources, resamples=100, **options)


def serious(diagnosis):
    return [(f.code, f.severity, f.modalities) for f in diagnosis.findings if f.severity in ("problem", "warning")]


def row_statistics(space):
    data = open_collection(space)
    rows_n = draw_items(data, sample_size(data, None), seed=0)
    rows_WL = window_rows(data.items, len(rows_n))
    kept_k = np.union1d(rows_n, rows_WL)
    scans = {name: scan_modality(modality, kept_k) for name, modality in data.modalities.items()}
    sample = collect_sample(data, scans, kept_k, rows_n, resamples=1, seed=0)
    windows = collect_windows(scans, kept_k, rows_WL)
    names = list(space)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    offsets = [offset for a, b in pairs for offset in find_row_offsets(windows, a, b, random_cosine=0.0)]
    return measure_row_alignment(sample, pairs, seed=0), offsets
