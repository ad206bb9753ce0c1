"""Convert the measurements of `SpaceDetails` to plain values; estimates are converted later."""

from typing import Any

from unialign.diagnostics._batch_neighbors import BatchNeighbors
from unialign.diagnostics._details import PairDetails, SpaceDetails
from unialign.diagnostics._mixing import Mixing
from unialign.diagnostics._truncation import Truncation, TruncationStats


def describe_neighbors(found: BatchNeighbors) -> dict[str, Any]:
    return {
        "batch_size": found.items,
        "count": found.negatives,
        "copies": found.copies,
        "close": found.close,
        "close_cosine": found.close_cosine,
        "mean_close_cosine": found.mean_close_cosine,
        "above": [{"cosine": cosine, "count": count} for cosine, count in found.above.items()],
        "largest_cosine": [{"quantile": quantile, "cosine": cosine} for quantile, cosine in found.largest.items()],
        "scales": [
            {"similarity_scale": scale, "removed": removed, "close_weight": found.close_weight[scale]}
            for scale, removed in found.removed.items()
        ],
        "scale_range": None if found.scales is None else {"low": found.scales[0], "high": found.scales[1]},
        "close_in_other_modalities": found.shared,
        "close_in_other_modalities_chance": found.shared_chance,
        "close_same_label": found.same_label,
        "same_label": found.same_label_chance,
    }


def describe_pair(found: PairDetails) -> dict[str, Any]:
    shape = found.shape
    return {
        "asymmetry": found.asymmetry,
        "mixed_pool": _mixing(found.mixing),
        "centered_mixed_pool": _mixing(found.centered_mixing),
        "distribution_gap": shape.distribution_gap,
        "distribution_gap_p": shape.distribution_p,
        "distribution_gap_bandwidth": shape.bandwidth,
        "covariance_mismatch": shape.covariance_mismatch,
        "random_pair_deviation": shape.deviation,
        "cutoffs": [vars(cutoff) for cutoff in found.cutoffs],
    }


def describe_space(details: SpaceDetails) -> dict[str, Any]:
    found: dict[str, Any] = {"deviations": details.deviation}
    if details.shared is not None:
        found["shared_component"] = details.shared
    if details.mixing is not None:
        found["mixed_pool"] = _mixing(details.mixing)
    if details.truncation is not None:
        found["truncation"] = _truncation(details.truncation)
    return found


def _mixing(mixing: Mixing) -> dict[str, Any]:
    return {
        "items": mixing.items,
        "modality_share": mixing.share,
        "ndcg@10": mixing.balanced,
        "ndcg@10_own": mixing.own,
        "ndcg@10_cross": mixing.cross,
    }


def _truncation(stats: TruncationStats) -> dict[str, Any]:
    return {
        "candidates": stats.items,
        "recall@1": stats.recall,
        "ndcg@10": stats.ndcg,
        "reduced": [_reduced(reduced) for reduced in stats.reduced],
    }


def _reduced(reduced: Truncation) -> dict[str, Any]:
    return {
        "dim": reduced.dim,
        "kind": reduced.kind,
        "recall@1": reduced.recall,
        "ndcg@10": reduced.ndcg,
        "recall@1_loss": reduced.recall_loss,
        "ndcg@10_loss": reduced.ndcg_loss,
    }
