"""`diagnose`: what is wrong with these embeddings?"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._checks import check_integer, check_seed
from unialign.diagnostics._finding import SEVERITIES, Finding, Severity
from unialign.diagnostics._findings_rows import row_findings
from unialign.diagnostics._findings_space import space_findings
from unialign.diagnostics._measure import measure
from unialign.diagnostics._numbers import numbers, summary
from unialign.diagnostics._plots import sketch
from unialign.diagnostics._sample import draw, neighbours, sample_size
from unialign.diagnostics._scan import Scan, scan
from unialign.diagnostics._sources import Material, Modality, Source, gather
from unialign.diagnostics._statistics import LEVEL, sampled, windowed
from unialign.diagnostics._text import answer, issue_line, text
from unialign.errors import ConfigError

__all__ = ["DiagnosisReport", "diagnose"]

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class DiagnosisReport:
    """What `diagnose` found.

    Attributes:
        findings: the worst first; each has `code`, `severity` (problem, warning, note, ok), `about` (modalities),
            `text` and `advice`.
        numbers: everything measured, by modality, pair and direction; estimates are `{"mean", "low", "high"}`.
        summary: metric -> mean and interval over all directions, pairs or modalities.
        line: one line to paste into an issue.
        fingerprint: sha256 of names, presence and rows.
        details: sources, settings, directions and sketches, as `results.json` has them.
    """

    findings: tuple[Finding, ...]
    numbers: dict[str, Any]
    summary: dict[str, dict[str, float]]
    issue_summary: str
    fingerprint: str
    details: dict[str, Any]

    @property
    def severity(self) -> Severity:
        """That of the worst finding."""
        return next((s for s in SEVERITIES if any(f.severity == s for f in self.findings)), "ok")

    @property
    def answer(self) -> str:
        """The whole in one or two sentences."""
        return answer(self.findings, self.numbers)

    def findings_with(self, code: str) -> tuple[Finding, ...]:
        """The findings of one code."""
        return tuple(finding for finding in self.findings if finding.code == code)

    def text(self) -> str:
        """Words, numbers, and the line to paste."""
        return text(self.findings, self.numbers, self.issue_summary)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON once NaN is null."""
        return {
            "answer": self.answer,
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "numbers": self.numbers,
            "issue_summary": self.issue_summary,
        }


def diagnose(
    sources: Source | Sequence[Source],
    *,
    modalities: Sequence[str] | None = None,
    present: Mapping[str, Any] | None = None,
    ids: Any = None,
    sample: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> DiagnosisReport:
    """Look for what is wrong with embeddings, without knowing what made them.

    Every row is read once, in pieces: damage, presence, lengths, exact copies, columns that never change. Geometry
    and retrieval are measured on a random sample of items, with bootstrap intervals over items (of one id together).
    Candidates that equal the right one number by number never count as wrong answers.

    Args:
        sources: a `.npz`, `.npy`, `.safetensors` or `.parquet` file, the folder of an `EmbeddingStore`, a shipped data
            set's name, `"NAME=PATH"`, an `EmbeddingStore`, a mapping of name to (N, D) array or tensor; or several of
            these with the same N items in the same order, or with the same unique `ids` in any order. Arrays called
            `ids`, `labels` (N,), `present.NAME` and `present/NAME` (N,) bool have their meaning. Compressed archives
            and parquet are slower to read. Nothing is unpickled.
        modalities: the names to look at; None: all (of a store: its default ones).
        present: modality -> (N,) bool; a missing name means all present. Absent rows may hold anything.
        ids: (N,) integers or texts; items with equal ids answer each other.
        sample: items to look at closely, at least 16; None: up to 2,048, fewer for more than 6 modalities.
        resamples: of the bootstrap, at least 100.
        seed: of the sample and the bootstrap.
        on_progress: called with modality, bytes read and bytes in all.

    Raises:
        DataError: a source cannot be read, holds no matrix or pickled objects; numbers of rows or ids differ.
        ShapeError: no (N, D) floats, or masks and ids that are not (N,).
        MissingDependencyError: parquet without pyarrow.
        ConfigError: unknown or repeated names, or a bad option.
    """
    if sample is not None:
        check_integer("sample", sample, low=16)
    check_integer("resamples", resamples, low=100)
    check_seed(seed)
    if modalities is not None and isinstance(modalities, str):
        raise ConfigError(f"modalities is the string {modalities!r}, expected a list of names such as [{modalities!r}]")
    material = gather(sources, modalities=modalities, present=present, ids=ids)
    rows_n = draw(material, sample_size(material, sample), seed=seed)
    rows_WL = neighbours(material, len(rows_n))
    kept_k = np.union1d(rows_n, rows_WL)
    scans = {name: _scan(material, name, kept_k, on_progress) for name in material.modalities}
    looked = sampled(material, scans, kept_k, rows_n, resamples=resamples, seed=seed)
    measured = measure(material, scans, looked, windowed(scans, kept_k, rows_WL), seed=seed)
    found = row_findings(material, measured) + space_findings(measured)
    findings = tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))
    known = numbers(material, measured, looked)
    totals, directions = summary(measured)
    fingerprint = hashlib.sha256("\n".join(f"{name} {s.fingerprint}" for name, s in scans.items()).encode()).hexdigest()
    details = {
        "name": material.name,
        "kinds": list(material.kinds),
        "sources": {name: f"{m.label}: {m.key}" if m.key else m.label for name, m in material.modalities.items()},
        "ids": material.ids_N is not None,
        "labels": material.labels_N is not None,
        "settings": {"sample": len(rows_n), "resamples": resamples, "level": LEVEL, "seed": seed},
        "directions": directions,
        "sketch": sketch(measured, looked),
    }
    line = issue_line(findings, known, totals, material.kinds, fingerprint)
    return DiagnosisReport(findings, known, totals, line, fingerprint, details)


def _scan(material: Material, name: str, rows_n: NDArray[np.int64], on_progress: OnProgress | None) -> Scan:
    modality = material.modalities[name]
    rows, width = modality.rows.shape
    total, done = rows * width * (8 if modality.rows.dtype.endswith("f8") else 4), 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(name, min(done, total), total)

    if modality.order_N is None:
        return scan(modality, rows_n, on_bytes=on_bytes)
    return _in_order(modality, modality.order_N, rows_n, on_bytes)


def _in_order(
    modality: Modality, order_N: NDArray[np.int64], rows_n: NDArray[np.int64], on_bytes: Callable[[int], None]
) -> Scan:
    """The scan of a file whose rows are in another order than the items."""
    item_N = np.empty_like(order_N)
    item_N[order_N] = np.arange(len(order_N))
    kept_n = np.sort(order_N[rows_n])
    own = dataclasses.replace(modality, present_N=modality.present_N[item_N])
    found = scan(own, kept_n, on_bytes=on_bytes)
    return dataclasses.replace(
        found,
        usable_N=found.usable_N[order_N],
        norms_N=found.norms_N[order_N],
        hashes_N=found.hashes_N[order_N],
        broken={
            kind: dataclasses.replace(b, first=tuple(sorted(item_N[list(b.first)].tolist())) if b.first else ())
            for kind, b in found.broken.items()
        },
        sample_nD=found.sample_nD[np.searchsorted(kept_n, order_N[rows_n])],
    )
