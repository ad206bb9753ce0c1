"""Migrate an index to a new embedding model with a small sample of pairs, and estimate the loss of quality first."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
