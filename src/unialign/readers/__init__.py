"""Read embeddings from files of many formats: arrays are listed from the headers, and rows are read in chunks."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
