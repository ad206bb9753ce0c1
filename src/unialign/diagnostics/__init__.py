"""Diagnose embeddings from files or arrays: findings with advice, and the numbers that support them."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
