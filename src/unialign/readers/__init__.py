"""Files to arrays: formats of embeddings, read from headers first and in pieces of bounded memory."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
