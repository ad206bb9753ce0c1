"""Measurements of an embedding space: modality gap, divergences, effective rank, hubness and gradient conflict."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
