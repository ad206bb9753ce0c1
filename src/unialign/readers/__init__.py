"""File formats of embeddings: arrays are found from headers, and rows are read in chunks of bounded memory."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
