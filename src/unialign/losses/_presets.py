"""Named option sets of UniAlign; each can be overridden option by option."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["PRESETS"]

_BALANCED = {
    "kernel": "clip",
    "temperature": 0.07,
    "alignment_scale": "matched",
    "weighting": "mean",
    "distance": "euclidean",
    "stop_gradient": "none",
    "centroid_weight": 0.0,
    "volume_weight": 0.0,
}

_PRESETS: dict[str, Mapping[str, Any]] = {
    # From scratch and fine-tuning. At M = 2 it is InfoNCE with each log-partition taken inside its modality.
    "balanced": _BALANCED,
    # The formula as printed (Eqs. 9 to 13). Only for continued training at a tiny learning rate: from scratch its
    # uniformity outweighs its alignment some 200 (M - 1) times.
    "paper": _BALANCED
    | {
        "kernel": "gaussian",
        "alignment_scale": 1.0,
        "weighting": "sum",
        "centroid_weight": 1.0,
        "volume_weight": 1.0,
    },
    # The weight per modality that anchor InfoNCE gives its partitions: anchor 1/2, every other 1 / (2 (M - 1)).
    "infonce_matched": _BALANCED | {"weighting": "infonce_matched"},
    # A pretrained anchor tower that is kept: it is a target only and does not repel.
    "frozen_anchor": _BALANCED | {"weighting": "exclude_anchor", "stop_gradient": "anchor"},
    # No natural anchor: alignment over all pairs, whatever `anchor` says.
    "symmetric": _BALANCED | {"anchor": "all"},
    # The paper's second geometry (Eq. 14); 0.26 is about sqrt(0.07), as its exponent has tau squared.
    "geodesic": _BALANCED | {"kernel": "geodesic", "temperature": 0.26, "distance": "geodesic"},
}

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {name: MappingProxyType(dict(options)) for name, options in _PRESETS.items()}
)
