"""The correction of an index, fitted by `ua.repair` to a sample of its items.

Shapes: `B` rows, `n` sampled items, `R` reference rows, `D` dimension.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign.batch import make_batch
from unialign.correction import MIN_ROWS, Repair, fit_given, local_similarity, repair, with_few_rows
from unialign.errors import CheckpointError, ConfigError, DataError, ShapeError
from unialign.index._probability import Curves, fit_curves, load_curves, save_curves
from unialign.io import write_json

# Modalities with fewer rows are not corrected.
_LEAST_CENTERED = 10


@dataclass(frozen=True)
class Calibration:
    """An affine map for each modality and, with CSLS, reference rows.

    Attributes:
        method: `none`, `center`, `coral` or `center_csls`.
        reason: reason for the method.
        modalities: names of the modalities of the index.
        weight: modality -> (D, D) float64; a missing name means the identity matrix.
        bias: modality -> (D,) float64; a missing name means 0.
        reference: modality -> (R, D) corrected unit rows, float64; empty unless the method uses CSLS.
        repair: the fitted repair, with its measurements on held-out items; None if nothing was fitted.
        curves: quantiles and probabilities of scores; None if there were too few rows.
    """

    method: str
    reason: str
    modalities: tuple[str, ...]
    weight: Mapping[str, Tensor] = field(default_factory=dict)
    bias: Mapping[str, Tensor] = field(default_factory=dict)
    reference: Mapping[str, Tensor] = field(default_factory=dict)
    repair: Repair | None = None
    curves: Curves | None = None

    def affine(self, name: str, z_BD: Tensor) -> Tensor:
        """Map unit rows in float64, without normalization."""
        out_BD = z_BD.double()
        if name in self.weight:
            out_BD = out_BD @ self.weight[name]
        return out_BD + self.bias[name] if name in self.bias else out_BD

    def correct(self, name: str, z_BD: Tensor) -> Tensor:
        """Map unit rows, and normalize them; rows equal to the mean of their modality become NaN."""
        out_BD = self.affine(name, z_BD)
        norm_B1 = torch.linalg.vector_norm(out_BD, dim=1, keepdim=True)
        unit_BD: Tensor = out_BD / norm_B1.masked_fill(norm_B1 < 1e-9, torch.nan)
        return unit_BD

    def local(self, name: str, corrected_BD: Tensor, reference: str) -> Tensor:
        """Return the (B,) mean cosine of corrected rows of a modality with their nearest reference rows of another."""
        return local_similarity(corrected_BD, self.reference[reference], same_modality=name == reference)

    def judge(self, share: Sequence[float], modality: str, score: float) -> tuple[float | None, float | None]:
        """Return (probability, quantile) of the score of a row; see `Hit`.

        Args:
            share: fraction of the query's absolute weights in each modality.
            modality: modality of the row.
            score: corrected score of the row.
        """
        return (None, None) if self.curves is None else self.curves.judge(self.modalities, share, modality, score)

    def near(self, a: str, b: str, rows: int) -> float | None:
        """Return the cosine that about one in 1,000 queries exceeds with one of `rows` unrelated rows, or None."""
        return None if self.curves is None else self.curves.near(a, b, rows)

    @property
    def few_rows(self) -> list[str]:
        """Modalities with too few rows to be corrected reliably: fewer than 50 in the sample."""
        made = {} if self.repair is None else self.repair.metadata.get("rows", {})
        return [name for name in self.modalities if made and made.get(name, 0) < MIN_ROWS]

    @property
    def summary(self) -> dict[str, Any]:
        """Describe the calibration as a JSON object.

        Its keys are `method`, `reason`, `rows` (modality -> number of rows), `few_rows`, `pairs` (for each pair, the
        debiased modality `gap`, and `own`, `cross`, `balanced` and `share` of mixed-pool retrieval, before and after
        the affine map) and `methods` (the same measurements of all methods on the pool of all modalities, and the
        reason for the rejection of a method). A `share` of 1 is fair: the modality of the query is found as often as
        others.
        """
        made = {} if self.repair is None else self.repair.metadata
        return {
            "method": self.method,
            "reason": self.reason,
            "rows": dict(made.get("rows", {})),
            "few_rows": self.few_rows,
            "pairs": list(made.get("table", [])),
            "methods": dict(made.get("candidates", {})),
        }


def uncorrected(modalities: tuple[str, ...], reason: str) -> Calibration:
    """Return a calibration that changes nothing."""
    return Calibration("none", reason, modalities)


def fit_calibration(
    embeddings: Mapping[str, Any],
    modalities: tuple[str, ...],
    *,
    present: Mapping[str, Any] | None = None,
    labels: Any = None,
    method: str = "auto",
    seed: int = 0,
) -> Calibration:
    """Fit the correction to embeddings, modality -> (n, D).

    The method `auto` is chosen by `ua.repair` on held-out items with two modalities or more; without such items, it is
    `center`. If fewer than two modalities have 50 rows, it is `none`. Other modalities with fewer than 50 rows do not
    take part in the choice; with 10 rows or more they are centered, and with fewer they are not corrected.

    Raises:
        ConfigError: the given method needs more rows.
    """
    masks = dict(present or {})
    z, has = _unit_rows(embeddings, masks)
    counts = {name: int(mask_n.sum()) for name, mask_n in has.items()}
    few = [name for name, rows in counts.items() if rows < MIN_ROWS]
    if len(z) < 2:
        return uncorrected(modalities, "a gap between modalities requires at least two modalities")
    # Centering was requested, so no measurement is needed.
    fitted = [name for name in z if name not in few] if method != "center" else list(z)
    if len(fitted) < 2:
        reason = f"{few[0]!r} has {counts[few[0]]} rows, and a correction needs two modalities with {MIN_ROWS} rows"
        if method in ("auto", "none"):
            return uncorrected(modalities, "given" if method == "none" else reason)
        raise ConfigError(f"the method {method!r} cannot be fitted: {reason}; add items, or choose 'auto'")
    rows = {name: z_nD[has[name]] for name, z_nD in z.items()}
    used = {name: rows[name] for name in fitted}
    measured, problem = _measured({name: embeddings[name] for name in fitted}, masks, labels, method, seed)
    try:
        if measured is None or method != "auto":
            chosen: Any = "center" if method == "auto" else method
            found = fit_given(chosen, used, metadata=None if measured is None else measured.metadata)
            reason = "given" if method != "auto" else f"the methods cannot be compared on held-out items: {problem}"
        else:
            found, reason = measured, _reason(measured)
    except DataError as error:
        return uncorrected(modalities, str(error))
    found.metadata["rows"] = counts
    left = {name: rows[name] for name in z if name not in fitted}
    curves = fit_curves(_scorer(found.index_choice, modalities), {n: z[n] for n in fitted}, has, seed=seed)
    return from_repair(with_few_rows(found, left, least=_LEAST_CENTERED) if left else found, reason, modalities, curves)


def _unit_rows(embeddings: Mapping[str, Any], masks: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    z: dict[str, Tensor] = {}
    has: dict[str, Tensor] = {}
    for name, rows in embeddings.items():
        rows_nD = torch.as_tensor(np.asarray(rows))
        mask_n = torch.as_tensor(np.asarray(masks[name])) if name in masks else torch.ones(len(rows_nD)).bool()
        if bool(mask_n.any()):
            batch = make_batch({name: rows_nD.double()}, present={name: mask_n}, minimum=1)
            z[name], has[name] = batch.z_MBD[0], mask_n
    return z, has


def _measured(
    embeddings: Mapping[str, Any], masks: Mapping[str, Any], labels: Any, method: str, seed: int
) -> tuple[Repair | None, str]:
    methods: list[str] | str = "auto" if method == "auto" else list(dict.fromkeys(("none", "center", method)))
    masks = {name: mask for name, mask in masks.items() if name in embeddings}
    try:
        return repair(embeddings, present=masks, labels=labels, methods=methods, seed=seed), ""
    except (DataError, ShapeError) as error:
        return None, str(error)


def _reason(found: Repair) -> str:
    if found.index_choice != "none":
        before, after = (100 * found.candidates[name]["balanced"]["mean"] for name in ("none", found.index_choice))
        return f"highest balanced NDCG@10 on held-out items: {after:.1f} %, {before:.1f} % without correction"
    reasons = [entry["reason"] for entry in found.candidates.values() if entry.get("reason")]
    return f"no method is better on held-out items: {reasons[0]}" if reasons else "no other method was compared"


def _scorer(method: Any, modalities: tuple[str, ...]) -> Any:
    """Return a function that fits the method to rows of some items, for curves on the other items."""
    return lambda rows: from_repair(fit_given(method, rows), "", modalities)


def from_repair(fitted: Repair, reason: str, modalities: tuple[str, ...], curves: Curves | None = None) -> Calibration:
    """Return the calibration with the index method of a repair."""
    layers = {name: fitted.index_layer(name) for name in fitted.modalities}
    uses_csls = fitted.index_choice == "center_csls"
    corrects = fitted.index_choice != "none"
    return Calibration(
        fitted.index_choice,
        reason,
        modalities,
        {name: layer.weight for name, layer in layers.items() if layer.weight is not None},
        {name: layer.bias for name, layer in layers.items()} if corrects else {},
        {name: layer.reference for name, layer in layers.items()} if uses_csls else {},
        fitted,
        curves,
    )


def save_calibration(calibration: Calibration, folder: Path) -> None:
    """Write `calibration.json`, and what was fitted: a folder `repair` and `curves.safetensors`."""
    described: dict[str, Any] = {
        "method": calibration.method,
        "reason": calibration.reason,
        "modalities": calibration.modalities,
    }
    if calibration.repair is not None:
        calibration.repair.save(folder / "repair")
    described |= {
        "repair": calibration.repair is not None,
        "curves": None if calibration.curves is None else save_curves(calibration.curves, folder),
    }
    write_json(folder / "calibration.json", described)


def load_calibration(folder: Path) -> Calibration:
    """Read what `save_calibration` wrote.

    Raises:
        DataError, CheckpointError: a file is missing or damaged.
    """
    try:
        described = json.loads((folder / "calibration.json").read_bytes())
        reason, modalities = str(described["reason"]), tuple(map(str, described["modalities"]))
        has_repair, sha256 = bool(described["repair"]), described["curves"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"the calibration {folder} cannot be read ({error}); calibrate the index again") from None
    if not has_repair:
        return uncorrected(modalities, reason)
    try:
        curves = load_curves(folder, str(sha256)) if sha256 is not None else None
        return from_repair(Repair.load(folder / "repair"), reason, modalities, curves)
    except CheckpointError as error:
        raise DataError(f"the calibration {folder} is damaged ({error}); calibrate the index again") from None
