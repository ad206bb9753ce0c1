"""Switch an index to a new embedding model from a small sample of pairs, and estimate the loss before the switch."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
