"""Validate the options shared by several objectives."""

from unialign._checks import check_number, check_text
from unialign.errors import ConfigError


def check_pair_anchor(anchor: object, objective: str) -> None:
    check_text("anchor", anchor)
    if anchor in ("centroid", "leave_one_out"):
        raise ConfigError(
            f"{objective} works on pairs of modalities; anchor must be a modality or 'all', not {anchor!r}"
        )


def check_potential(t: object) -> None:
    check_number("t", t, "a positive number of at most 1e5", lambda x: 0 < x <= 1e5)


def check_label_smoothing(label_smoothing: object) -> None:
    check_number("label_smoothing", label_smoothing, "in [0, 1)", lambda x: 0 <= x < 1)
