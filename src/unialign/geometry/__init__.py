"""Measurements of an embedding space: modality gap, divergences, spectrum, hubness, and conflicts of forces."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
