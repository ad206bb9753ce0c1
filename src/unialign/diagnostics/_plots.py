"""Data of the report's plots.

Shapes: `n` sampled items, `d` plotted items, `D` dimension.
"""

from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign._pair_keys import pair_name
from unialign.diagnostics._measure import Measurements
from unialign.diagnostics._sampling import ItemSample
from unialign.geometry import drawn_places, principal_map

_BINS = 60


def sketch(measured: Measurements, sample: ItemSample) -> dict[str, Any]:
    """Return the data of the plots: `map` holds [x, y] on the first two principal axes (None where absent), and
    `cosines` the histograms of each pair. Empty for unequal dims or fewer than 3 items.
    """
    names = list(measured.modalities)
    position_n = np.flatnonzero(np.any([sample.usable[name].numpy() for name in names], axis=0))
    if len({m.dim for m in measured.modalities.values()}) > 1 or len(position_n) < 3:
        return {}
    position_d = position_n[drawn_places(len(position_n), len(names))]
    at_d = torch.from_numpy(position_d)
    usable = {name: sample.usable[name][at_d] for name in names}
    z = {name: sample.z[name][at_d] for name in names}
    found = principal_map(z, usable)
    if not found:
        return {}
    return {
        "rows": sample.rows_n[position_d].tolist(),
        **found,
        "cosines": {
            pair_name(a, b): _histograms(z[a][usable[a] & usable[b]], z[b][usable[a] & usable[b]])
            for a, b in combinations(names, 2)
            if int((usable[a] & usable[b]).sum()) >= 3
        },
    }


def _histograms(x_dD: Tensor, y_dD: Tensor) -> dict[str, Any]:
    cosine_dd = (x_dD @ y_dD.mT).numpy()
    true_d = np.diagonal(cosine_dd)
    other = cosine_dd[~np.eye(len(cosine_dd), dtype=np.bool_)]
    low, high = float(min(true_d.min(), other.min())), float(max(true_d.max(), other.max()))
    low, high = (low, high) if high - low > 1e-6 else (low - 1e-3, high + 1e-3)
    true, random = (np.histogram(values, _BINS, (low, high))[0].tolist() for values in (true_d, other))
    return {"low": low, "high": high, "true": true, "random": random}
