"""Check the options of UniAlign and their combinations."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from unialign._checks import check_choice, check_nonnegative, check_number, check_temperature, check_text
from unialign.errors import ConfigError
from unialign.functional import Distance, PartitionPositive, Reduction, StopGradient
from unialign.losses._modality_temperature import check_temperatures
from unialign.losses._similarity import check_similarity_scale, uses_similarity
from unialign.ops import Kernel

Weighting = Literal["mean", "sum", "infonce_matched", "exclude_anchor"]


def check_unialign(options: Mapping[str, Any]) -> None:
    anchor, weighting, scale = options["anchor"], options["weighting"], options["alignment_scale"]
    check_text("anchor", anchor)
    check_temperatures(options["temperature"])
    if options["centroid_temperature"] is not None:
        check_temperature(options["centroid_temperature"], "centroid_temperature")
    for option, allowed in (
        ("kernel", get_args(Kernel)),
        ("reduction", (None, *get_args(Reduction))),
        ("weighting", get_args(Weighting)),
        ("distance", get_args(Distance)),
        ("stop_gradient", get_args(StopGradient)),
        ("partition_positive", get_args(PartitionPositive)),
    ):
        check_choice(option, options[option], allowed)
    for option in ("uniformity_weight", "alignment_weight", "centroid_weight", "volume_weight"):
        check_nonnegative(option, options[option])
    if options["volume_eps"] is not None:
        check_nonnegative("volume_eps", options["volume_eps"])
    if not isinstance(scale, str) or scale != "matched":
        check_number("alignment_scale", scale, "'matched' or a positive number", lambda x: 0 < x < math.inf)
    mix = options["partition_mix"]
    if not isinstance(mix, str) or mix != "auto":
        check_number("partition_mix", mix, "'auto' or a number in [0, 1]", lambda x: 0 <= x <= 1)
    check_similarity_scale(options["similarity_scale"])
    if anchor == "all" and options["stop_gradient"] == "anchor":
        raise ConfigError("stop_gradient='anchor' needs an anchor modality, 'centroid' or 'leave_one_out', got 'all'")
    if anchor in ("all", "centroid", "leave_one_out") and weighting in ("infonce_matched", "exclude_anchor"):
        raise ConfigError(f"weighting={weighting!r} needs an anchor modality, got anchor={anchor!r}")
    if mix == "auto" or mix < 1:
        for option, reason in _obstacles_to_mix(options):
            raise ConfigError(f"partition_mix below 1 does not support {option}={options[option]!r}: {reason}")
    if uses_similarity(options["similarity_scale"]) and not _is_mean_log(options):
        raise ConfigError("similarity_scale needs reduction='mean_log', since its weights are inside the logarithms")


def supports_mix(options: Mapping[str, Any]) -> bool:
    """Whether the other options allow a part of the repulsion to be across modalities."""
    return not any(_obstacles_to_mix(options))


def _obstacles_to_mix(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield options that do not allow values below 1, and the reasons."""
    reduction, kernel, distance = options["reduction"], options["kernel"], options["distance"]
    if options["anchor"] == "centroid":
        yield "anchor", "its partition is over pairs of modalities; use a modality or 'all'"
    if options["weighting"] in ("sum", "exclude_anchor"):
        yield "weighting", "only 'mean' and 'infonce_matched' give the two partitions equal weight"
    if options["stop_gradient"] == "anchor":
        yield "stop_gradient", "its partition also has a gradient at the anchor; use 'none'"
    if reduction == "outer_log":
        yield "reduction", "its partition is a mean of logs; use 'mean_log'"
    if reduction is None and not _is_mean_log(options):
        yield "kernel", "its default reduction is 'outer_log'; use reduction='mean_log'"
    if (kernel == "geodesic") != (distance == "geodesic"):
        yield (
            "kernel",
            f"with distance={distance!r} attraction and repulsion have two geometries; use one for both",
        )


def _is_mean_log(options: Mapping[str, Any]) -> bool:
    reduction = options["reduction"]
    return reduction == "mean_log" or (reduction is None and options["kernel"] != "wang_isola")
