"""Formulas of the objectives as pure functions on tensors.

`uniformity`, `alignment`, `centroids` and `gram_volume` take any rows and normalize them. The other functions take unit
rows, or a validated batch (`unialign.batch.make_batch`), and are the terms of the objectives.
"""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
