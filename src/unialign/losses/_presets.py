"""Named presets of UniAlign; explicit options override them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_BALANCED = {
    "kernel": "clip",
    "temperature": 0.07,
    "alignment_scale": "matched",
    "weighting": "mean",
    "distance": "euclidean",
    "stop_gradient": "none",
    "centroid_weight": 0.0,
    "volume_weight": 0.0,
    "partition_mix": 1.0,
    "partition_positive": "included",
    "alignment_weight": 1.0,
    "similarity_scale": 0.0,
}
# Attraction apart from repulsion, which is across modalities.
_DECOUPLED = _BALANCED | {"anchor": "all", "partition_mix": 0.0, "partition_positive": "excluded"}

_PRESETS: dict[str, Mapping[str, Any]] = {
    # For fine-tuning, and for heads on standardized features. At M = 2 this is InfoNCE with log-partitions within each
    # modality.
    "balanced": _BALANCED,
    # For encoders with random weights: `balanced`, except while the rows of a modality are in a narrow cone.
    "adaptive": _BALANCED | {"partition_mix": "auto"},
    # The formula as printed (Eqs. 9 to 13). Use it only to continue training at a tiny learning rate: from scratch,
    # uniformity outweighs alignment by a factor of about 200 (M - 1).
    "paper": _BALANCED
    | {
        "kernel": "gaussian",
        "alignment_scale": 1.0,
        "weighting": "sum",
        "centroid_weight": 1.0,
        "volume_weight": 1.0,
    },
    # The weights of the log-partitions in anchor InfoNCE: 1/2 for the anchor, 1 / (2 (M - 1)) for each other modality.
    "infonce_matched": _BALANCED | {"weighting": "infonce_matched"},
    # For a frozen pretrained anchor encoder, which needs no repulsion and cannot collapse. `benchmarks.frozen_anchor`
    # chose the weight on validation rows.
    "frozen_anchor": _BALANCED | {"weighting": "exclude_anchor", "stop_gradient": "anchor", "alignment_weight": 2.0},
    # For data without a natural anchor: alignment over all pairs, ignoring `anchor`.
    "symmetric": _BALANCED | {"anchor": "all"},
    # The paper's second geometry (Eq. 14); 0.26 is about sqrt(0.07), since the exponent of the geodesic kernel contains
    # tau squared.
    "geodesic": _BALANCED | {"kernel": "geodesic", "temperature": 0.26, "distance": "geodesic"},
    # Decoupled contrastive learning (Yeh et al. 2022) over all pairs of modalities: InfoNCE without the positive in the
    # denominator. Its gradient does not vanish in small batches.
    "small_batch": _DECOUPLED,
    # For joint queries of several modalities: `small_batch` with smaller weights of similar negatives.
    "joint_queries": _DECOUPLED | {"similarity_scale": 5.0, "alignment_weight": 0.7},
    # For classes: even smaller weights of similar negatives.
    "classes": _DECOUPLED | {"similarity_scale": 10.0, "alignment_weight": 0.9},
    # For retrieval of single modalities: a quarter of the repulsion within modalities, and the mean of the other
    # modalities as target.
    "retrieval": _DECOUPLED
    | {"anchor": "leave_one_out", "partition_mix": 0.25, "similarity_scale": 5.0, "alignment_weight": 0.7},
}

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {name: MappingProxyType(dict(options)) for name, options in _PRESETS.items()}
)
