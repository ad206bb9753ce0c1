"""Reduce all pairs of rows in tiles: exact values and gradients in O(B D) memory, without a B x B matrix.

Losses, metrics and measurements use these reductions. The implementation is chosen by device and size, or explicitly:

    with unialign.ops.use_backend("reference"):
        loss(embeddings).total.backward()
"""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
