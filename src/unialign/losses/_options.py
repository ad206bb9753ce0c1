"""Checks of options that several objectives have."""

from unialign._checks import check_number, check_text
from unialign.errors import ConfigError

__all__ = ["check_label_smoothing", "check_pair_anchor", "check_potential", "check_tuple_anchor"]


def check_pair_anchor(anchor: object, objective: str) -> None:
    """Refuse an anchor that means no pairs: anything but a modality's name or "all"."""
    check_text("anchor", anchor)
    if anchor == "centroid":
        raise ConfigError(
            f"{objective} works on pairs of modalities; anchor must be a modality or 'all', not 'centroid'"
        )


def check_tuple_anchor(anchor: object, objective: str) -> None:
    """Refuse an anchor that cannot be held against the others of a tuple: anything but a modality's name."""
    check_text("anchor", anchor)
    if anchor in ("all", "centroid"):
        raise ConfigError(
            f"{objective} contrasts one anchor with tuples of the others; anchor={anchor!r} is no modality, name one"
        )


def check_potential(t: object) -> None:
    """Refuse a t of exp(-t |x - y|^2) that is no positive number, or so large that float32 loses the cosines."""
    check_number("t", t, "a positive number of at most 1e5", lambda x: 0 < x <= 1e5)


def check_label_smoothing(label_smoothing: object) -> None:
    """Refuse a share of the target that is not spread: anything outside [0, 1)."""
    check_number("label_smoothing", label_smoothing, "in [0, 1)", lambda x: 0 <= x < 1)
