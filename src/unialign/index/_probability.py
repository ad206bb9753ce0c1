"""Quantiles and probabilities of scores, estimated on items that did not determine the correction.

A quantile is the fraction of unpaired rows with a lower score. A probability is a logistic curve of the score, fitted
to the rows of the same item and of other items. It is only defined between different modalities, since an item has one
row per modality. It is never used to order results.

Shapes: `n` items, `p` pairs of rows of one item, `u` unpaired rows, `L` levels, `M` modalities, `D` dimension.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.correction import MIN_ROWS
from unialign.errors import DataError
from unialign.io import read_tensors, write_tensors

if TYPE_CHECKING:
    from unialign.index._calibration import Calibration

Floats = NDArray[np.float64]
FILE = "curves.safetensors"
# Levels of the stored quantiles, denser where scores are high.
LEVELS: Floats = np.concatenate([np.linspace(0, 0.98, 50), 1 - np.geomspace(0.019, 1e-6, 60), [1.0]])
_MOST_ROWS, _BINS, _NEWTON_STEPS = 1000, 512, 50
# A curve needs this number of pairs, and scores of this number of unpaired rows.
_FEWEST_PAIRS, _FEWEST_UNPAIRED = 20, 400
# Penalty of the squared slope, for standardized scores, so that separable scores have a finite curve.
_RIDGE = 1e-3
# Rows with a higher corrected cosine are always near duplicates.
_MOST_NEAR = 0.99
# Standard normal quantiles at .99 and .999.
_Z99, _Z999 = 2.3263478740408408, 3.090232306167813


@dataclass(frozen=True)
class Curves:
    """Curves for each modality a of a query and m of a row, in the order of `modalities`.

    Attributes:
        modalities: names of the M modalities for which curves were fitted.
        quantiles: (M, M, L) scores of unpaired rows at `LEVELS`; NaN if there were too few.
        logistic: (M, M, 2) slope and intercept of the probability; NaN for a = m and if there were too few pairs.
        tail: (M, M, 2) quantiles .99 and .999 of the cosines of unpaired rows.
    """

    modalities: tuple[str, ...]
    quantiles: Floats
    logistic: Floats
    tail: Floats

    def judge(
        self, modalities: Sequence[str], share: Sequence[float], modality: str, score: float
    ) -> tuple[float | None, float | None]:
        """Return (probability, quantile): means over the modalities of the query, weighted by their shares.

        The probability is None if the row's modality is among them.
        """
        used = [(name, float(w)) for name, w in zip(modalities, share, strict=True) if w > 0]
        if modality not in self.modalities or any(name not in self.modalities for name, _ in used) or not used:
            return None, None
        m = self.modalities.index(modality)
        rows = [self.modalities.index(name) for name, _ in used]
        weights = np.array([weight for _, weight in used]) / sum(weight for _, weight in used)
        quantile = float(weights @ [np.interp(score, self.quantiles[a, m], LEVELS) for a in rows])
        slopes, intercepts = self.logistic[rows, m].T
        if np.isnan(quantile):
            return None, None
        if np.isnan(slopes).any():
            return None, quantile
        return float(weights @ np.exp(-np.logaddexp(0.0, -(slopes * score + intercepts)))), quantile

    def near(self, a: str, b: str, rows: int) -> float | None:
        """Return the cosine that about one in 1,000 rows of modality a exceeds with one of `rows` unpaired rows of b.

        The quantile 1 - .001 / rows is extrapolated from the quantiles .99 and .999 with a normal tail, since it is
        beyond the range of the calibration rows.
        """
        if a not in self.modalities or b not in self.modalities:
            return None
        low, high = self.tail[self.modalities.index(a), self.modalities.index(b)]
        if np.isnan(low):
            return None
        level = torch.tensor(0.001 / max(rows, 1), dtype=torch.float64)
        deviations = -float(torch.special.ndtri(level))
        return float(min(high + (high - low) / (_Z999 - _Z99) * (deviations - _Z999), _MOST_NEAR))


Fit = Callable[[Mapping[str, Tensor]], "Calibration"]


def fit_curves(fit: Fit, z: Mapping[str, Tensor], present: Mapping[str, Tensor], *, seed: int = 0) -> Curves | None:
    """Fit the correction to a random half of the items with `fit`, and the curves to scores of the other half.

    Args:
        fit: function from modality -> (n, D) rows to a calibration.
        z: modality -> (n, D) float64 unit rows, 0 where absent.
        present: modality -> (n,) bool.

    Returns:
        Curves of the modalities with 50 rows or more in each half; None for fewer than two such modalities.
    """
    items = len(next(iter(z.values())))
    order = torch.from_numpy(np.random.default_rng(seed).permutation(items))
    halves = order[: items // 2].sort().values, order[items // 2 :][:_MOST_ROWS].sort().values
    names = tuple(name for name in z if min(int(present[name][half].sum()) for half in halves) >= MIN_ROWS)
    if len(names) < 2:
        return None
    used, held = halves
    calibration = fit({name: z[name][used][present[name][used]] for name in names})
    rows, places = {}, {}
    for name in names:
        places[name] = held[present[name][held]]
        rows[name] = calibration.correct(name, z[name][places[name]]).nan_to_num()
    shape = (len(names), len(names))
    quantiles = np.full((*shape, len(LEVELS)), np.nan)
    logistic, tail = np.full((*shape, 2), np.nan), np.full((*shape, 2), np.nan)
    for i, a in enumerate(names):
        for j, m in enumerate(names):
            cosine_am = rows[a] @ rows[m].mT
            same_am = places[a][:, None] == places[m][None]
            score_am = cosine_am
            if calibration.reference:
                local_a, local_m = calibration.local(a, rows[a], m), calibration.local(m, rows[m], a)
                score_am = 2 * cosine_am - local_a[:, None] - local_m
            unpaired_u = score_am[~same_am].numpy()
            if len(unpaired_u) < _FEWEST_UNPAIRED:
                continue
            quantiles[i, j] = np.quantile(unpaired_u, LEVELS)
            tail[i, j] = np.quantile(cosine_am[~same_am].numpy(), [0.99, 0.999])
            paired_p = score_am[same_am].numpy()
            if a != m and len(paired_p) >= _FEWEST_PAIRS:
                logistic[i, j] = fit_logistic(paired_p, unpaired_u)
    return Curves(names, quantiles, logistic, tail)


def fit_logistic(paired_p: Floats, unpaired_u: Floats) -> tuple[float, float]:
    """Return slope and intercept of the logistic regression of pairs against unpaired rows, with binned scores.

    The prior probability of a pair is that of the calibration rows. The slope is not negative.
    """
    scores = np.concatenate([paired_p, unpaired_u])
    center, scale = float(scores.mean()), max(float(scores.std()), 1e-12)
    edges = np.linspace(scores.min(), scores.max() + 1e-12, _BINS + 1)
    x = ((edges[:-1] + edges[1:]) / 2 - center) / scale
    positive = np.histogram(paired_p, edges)[0].astype(np.float64)
    total = positive + np.histogram(unpaired_u, edges)[0]
    slope, intercept = 0.0, float(np.log(len(paired_p) / len(unpaired_u)))
    for _ in range(_NEWTON_STEPS):
        p = np.exp(-np.logaddexp(0.0, -(slope * x + intercept)))
        error, weight = positive - total * p, total * p * (1 - p)
        gradient = np.array([error @ x - _RIDGE * slope, error.sum()])
        hessian = np.array([[weight @ x**2 + _RIDGE, weight @ x], [weight @ x, weight.sum() + 1e-12]])
        step = np.linalg.solve(hessian, gradient)
        # Full steps may diverge if few pairs are among many unpaired rows.
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        slope, intercept = slope + float(step[0]), intercept + float(step[1])
        if float(np.abs(step).max()) < 1e-9:
            break
    if slope < 0:
        return 0.0, float(np.log(len(paired_p) / len(unpaired_u)))
    return slope / scale, intercept - slope * center / scale


def save_curves(curves: Curves, folder: Path) -> str:
    """Write the curves to a file, and return its sha256."""
    tensors = {part: torch.from_numpy(getattr(curves, part)) for part in ("quantiles", "logistic", "tail")}
    names = "\0".join(curves.modalities).encode()
    return write_tensors(folder / FILE, {**tensors, "modalities": torch.tensor(list(names), dtype=torch.uint8)})


def load_curves(folder: Path, sha256: str) -> Curves:
    """Read the curves; raise DataError or CheckpointError if the file is damaged."""
    tensors: dict[str, Any] = read_tensors(folder / FILE, sha256=sha256)
    try:
        names = tuple(bytes(tensors["modalities"].tolist()).decode().split("\0"))
        parts = {part: tensors[part].double().numpy() for part in ("quantiles", "logistic", "tail")}
    except (KeyError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{folder / FILE} is damaged ({error}); calibrate the index again") from None
    shapes = {"quantiles": (len(names), len(names), len(LEVELS))}
    for part, values in parts.items():
        if values.shape != shapes.get(part, (len(names), len(names), 2)):
            raise DataError(f"{folder / FILE} is damaged: {part} has shape {values.shape}; calibrate the index again")
    return Curves(names, **parts)
