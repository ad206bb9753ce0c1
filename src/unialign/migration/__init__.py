"""Migrate an index to a new embedding model with a few pairs, and estimate the loss of quality before the switch."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
