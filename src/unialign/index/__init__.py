"""An index of items with any subset of the modalities of a space: exact search, filters, durable storage."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
