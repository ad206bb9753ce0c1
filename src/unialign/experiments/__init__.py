"""Compare objectives on the same data with the same budget over several seeds, with intervals and verdicts."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
