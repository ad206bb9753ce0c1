"""The correction of an index, fitted by `ua.repair` to a sample of its items.

Shapes: `B` rows, `R` reference rows, `D` dimension.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unialign.correction import Repair, local_similarity, repair
from unialign.errors import ConfigError, DataError, ShapeError
from unialign.io import write_json


@dataclass(frozen=True)
class Calibration:
    """An affine map for each modality and, with CSLS, reference rows.

    Attributes:
        method: `none`, `center`, `coral` or `center_csls`.
        reason: reason for the method.
        weight: modality -> (D, D) float64; a missing name means the identity matrix.
        bias: modality -> (D,) float64; a missing name means 0.
        reference: modality -> (R, D) corrected unit rows, float64; empty unless the method uses CSLS.
    """

    method: str
    reason: str
    modalities: tuple[str, ...]
    weight: Mapping[str, Tensor] = field(default_factory=dict)
    bias: Mapping[str, Tensor] = field(default_factory=dict)
    reference: Mapping[str, Tensor] = field(default_factory=dict)
    repair: Repair | None = None

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
        return out_BD / norm_B1.masked_fill(norm_B1 < 1e-9, torch.nan)

    def local(self, name: str, corrected_BD: Tensor, reference: str) -> Tensor:
        """(B,) mean cosine of corrected rows of a modality with their nearest reference rows of another."""
        return local_similarity(corrected_BD, self.reference[reference], same_modality=name == reference)


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
) -> Calibration:
    """Fit the correction to embeddings, modality -> (B, D)."""
    try:
        # CSLS scores use centered rows.
        methods = {"auto": "auto", "center_csls": ["center"]}.get(method, [method])
        fitted = repair(embeddings, present=present, labels=labels, methods=methods)
    except (DataError, ShapeError) as error:
        return uncorrected(modalities, str(error))
    if method not in ("auto", "center_csls", fitted.choice):
        raise ConfigError(
            f"the method {method!r} cannot be fitted to these items (it needs at least 50 rows of each modality); choose "
            "'center' or 'auto'"
        )
    if method != "auto":
        fitted = fitted.with_index_choice(method)
    return from_repair(fitted, "chosen on held-out items" if method == "auto" else "given", modalities)


def from_repair(fitted: Repair, reason: str, modalities: tuple[str, ...]) -> Calibration:
    """Return the calibration with the index method of a repair."""
    layers = {name: fitted.index_layer(name) for name in fitted.modalities}
    uses_csls = fitted.index_choice == "center_csls"
    return Calibration(
        fitted.index_choice,
        reason,
        modalities,
        {name: layer.weight for name, layer in layers.items() if layer.weight is not None},
        {name: layer.bias for name, layer in layers.items()},
        {name: layer.reference for name, layer in layers.items()} if uses_csls else {},
        fitted,
    )


def save_calibration(calibration: Calibration, folder: Path) -> None:
    """Write `calibration.json` and, unless nothing is corrected, a folder `repair`, to an existing folder."""
    described = {"method": calibration.method, "reason": calibration.reason, "modalities": calibration.modalities}
    if calibration.repair is not None:
        calibration.repair.save(folder / "repair")
    write_json(folder / "calibration.json", described)


def load_calibration(folder: Path) -> Calibration:
    """Read what `save_calibration` wrote.

    Raises:
        DataError, CheckpointError: a file is missing or damaged.
    """
    try:
        described = json.loads((folder / "calibration.json").read_bytes())
        reason, modalities = str(described["reason"]), tuple(map(str, described["modalities"]))
        method = str(described["method"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"the calibration {folder} cannot be read ({error}); calibrate the index again") from None
    if not (folder / "repair").is_dir():
        return uncorrected(modalities, reason) if method == "none" else _missing(folder)
    return from_repair(Repair.load(folder / "repair"), reason, modalities)


def _missing(folder: Path) -> Calibration:
    raise DataError(f"the calibration {folder} has no folder `repair`; calibrate the index again")
