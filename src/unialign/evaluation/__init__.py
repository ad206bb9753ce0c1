"""Evaluate embeddings of a set of items with every metric in every direction, and with intervals."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
