"""What is wrong with these embeddings? Anybody's files, in words first, then in numbers."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
