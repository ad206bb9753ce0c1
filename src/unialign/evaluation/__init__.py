"""Evaluate the embeddings of a set of items: all metrics in all directions, with intervals."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
