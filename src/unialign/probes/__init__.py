"""Classify items from their embeddings: zero-shot classification, linear and k-nearest-neighbor probes."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
