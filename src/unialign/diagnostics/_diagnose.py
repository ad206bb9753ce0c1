"""Find faults in the embeddings of several modalities."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, overload

import numpy as np

from unialign._checks import check_integer, check_seed
from unialign.data import Sources, open_collection
from unialign.diagnostics._drift import compare_versions
from unialign.diagnostics._drift_report import DriftReport
from unialign.diagnostics._estimate import LEVEL
from unialign.diagnostics._finding import SEVERITIES, Finding
from unialign.diagnostics._measure import Measurements, measure
from unialign.diagnostics._plots import sketch
from unialign.diagnostics._report import DiagnosisReport
from unialign.diagnostics._results import describe_numbers, summarize
from unialign.diagnostics._rules_batch import BATCH_TABLES
from unialign.diagnostics._rules_index import INDEX_TABLES
from unialign.diagnostics._rules_pairing import PAIRING_TABLES
from unialign.diagnostics._rules_retrieval import RETRIEVAL_TABLES
from unialign.diagnostics._rules_rows import ROW_TABLES
from unialign.diagnostics._rules_space import SPACE_TABLES, fold_consequences
from unialign.diagnostics._sampling import collect_sample, collect_windows, draw_items, sample_size, window_rows
from unialign.diagnostics._scan import scan_modality
from unialign.errors import ConfigError


@overload
def diagnose(
    sources: Sources,
    *,
    against: None = None,
    modalities: Sequence[str] | None = None,
    present: Mapping[str, Any] | None = None,
    ids: Any = None,
    labels: Any = None,
    id: str | None = None,
    sample: int | None = None,
    batch_size: int = 256,
    resamples: int = 1000,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> DiagnosisReport: ...


@overload
def diagnose(
    sources: Sources,
    *,
    against: Sources,
    modalities: Sequence[str] | None = None,
    id: str | None = None,
    sample: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> DriftReport: ...


def diagnose(
    sources: Sources,
    *,
    against: Sources | None = None,
    modalities: Sequence[str] | None = None,
    present: Mapping[str, Any] | None = None,
    ids: Any = None,
    labels: Any = None,
    id: str | None = None,
    sample: int | None = None,
    batch_size: int = 256,
    resamples: int = 1000,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> DiagnosisReport | DriftReport:
    """Find faults in the embeddings of several modalities, independent of the model that produced them.

    With `against`, compare two versions of the same embeddings instead, and return a `DriftReport`.

    All rows are read once, in chunks, to find invalid values, presence, norms, exact duplicates and constant columns.
    Geometry and retrieval are measured on a random sample of items, with bootstrap intervals over items (same-id items
    are resampled together). Candidates equal to the positive are never used as negatives.

    Args:
        sources: a file (`.npz`, `.npy`, `.safetensors`, `.parquet`, `.csv`, `.jsonl`, `.h5`, ... see the page "Files
            and formats"), a folder or pattern of part files, the folder of an `EmbeddingStore`, the name of a shipped
            data set, `"NAME=PATH"`, an `EmbeddingStore`, or a mapping of name to (N, D) array or tensor; or several of
            these with the same N items in the same order, or with the same unique `ids` in any order. Arrays named
            `ids`, `labels` (N,), `present.NAME` and `present/NAME` (N,) bool are read as ids, labels and presence
            masks. Compressed archives and parquet are slower to read. Nothing is unpickled.
        against: an older version of the same embeddings, such as the output of another engine, precision or release
            of the model. Modalities are matched by name, and rows by `ids` or, without ids, by their order. `present`,
            `ids` and `labels` must then be None: store these arrays in both sources.
        modalities: names of the modalities to diagnose; None: all (of a store: its default ones).
        present: modality -> (N,) bool; a missing name means that all rows are present. The values of absent rows are
            ignored.
        ids: (N,) integers or strings; same-id items are positives of each other.
        id: name of the array or column of ids used to join the files; None: `ids` or a common name such as `id`, `key`,
            `uuid` or `image_id`. The report states which name was used.
        labels: (N,) integers (negative: unlabeled) or strings; retrieval of items with the same label is also measured.
        sample: number of items sampled to measure geometry and retrieval, at least 16; None: up to 2,048, fewer for
            more than 6 modalities. At most 8,192 with `against`.
        batch_size: number of items of a training batch, at least 2. The similar negatives of a query in such a batch
            are counted; not used with `against`.
        resamples: number of bootstrap resamples, at least 100.
        seed: random seed of the sample and the bootstrap.
        on_progress: called with the modality, the bytes read so far and the total bytes.

    Raises:
        DataError: a source cannot be read, holds no matrix or holds pickled objects; row counts or ids differ.
        ShapeError: a matrix is not (N, D) of floats, or masks, ids or labels are not (N,).
        MissingDependencyError: a parquet file was given, but pyarrow is not installed.
        ConfigError: unknown or repeated names, or an option out of range.
    """
    if sample is not None:
        check_integer("sample", sample, low=16)
    check_integer("batch_size", batch_size, low=2)
    check_integer("resamples", resamples, low=100)
    check_seed(seed)
    if isinstance(modalities, str):
        raise ConfigError(f"modalities is the string {modalities!r}, expected a list of names such as [{modalities!r}]")
    if against is not None:
        if given := [
            name for name, value in {"present": present, "ids": ids, "labels": labels}.items() if value is not None
        ]:
            raise ConfigError(f"{given[0]} cannot be combined with against; store {given[0]} in both sources")
        return compare_versions(
            sources,
            against,
            modalities=modalities,
            id=id,
            sample=sample,
            resamples=resamples,
            seed=seed,
            on_progress=on_progress,
        )
    data = open_collection(sources, modalities=modalities, present=present, ids=ids, labels=labels, id=id)
    rows_n = draw_items(data, sample_size(data, sample), seed=seed)
    rows_WL = window_rows(data.items, len(rows_n))
    kept_k = np.union1d(rows_n, rows_WL)
    scans = {
        name: scan_modality(modality, kept_k, on_bytes=partial(on_progress, name) if on_progress else None)
        for name, modality in data.modalities.items()
    }
    items = collect_sample(data, scans, kept_k, rows_n, resamples=resamples, seed=seed)
    windows = collect_windows(scans, kept_k, rows_WL)
    measured = measure(data, scans, items, windows, batch_size=batch_size, seed=seed)
    parts = [f"{name} {scan.fingerprint}" for name, scan in scans.items()]
    return DiagnosisReport(
        findings=find(measured),
        numbers=describe_numbers(measured, len(rows_n)),
        summary=summarize(measured),
        proposed_ids=measured.proposed_ids,
        fingerprint=hashlib.sha256("\n".join(parts).encode()).hexdigest(),
        details={
            "name": data.name,
            "kinds": list(data.kinds),
            "sources": {name: m.source.place(m.entry) for name, m in data.modalities.items()},
            "ids": "ids" in data.values,
            "labels": "labels" in data.values,
            "settings": {
                "sample": len(rows_n),
                "batch_size": batch_size,
                "resamples": resamples,
                "level": LEVEL,
                "seed": seed,
            },
            "sketch": sketch(measured, items),
        },
    )


def find(measured: Measurements) -> tuple[Finding, ...]:
    tables = (*ROW_TABLES, *PAIRING_TABLES, *SPACE_TABLES, *RETRIEVAL_TABLES, *INDEX_TABLES, *BATCH_TABLES)
    found = [finding for table in tables for finding in table.findings(measured)]
    return tuple(sorted(fold_consequences(found, measured), key=lambda finding: SEVERITIES.index(finding.severity)))
