"""Comparisons of objectives: same data, same budget, several seeds, intervals and verdicts."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
