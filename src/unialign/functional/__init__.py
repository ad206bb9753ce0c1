"""The formulas of the objectives as pure functions of tensors.

`uniformity`, `alignment`, `centroids` and `gram_volume` accept unnormalized rows and normalize them. The other
functions compute the terms of the objectives from unit rows or from a validated batch (`unialign.batch.make_batch`).
"""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
