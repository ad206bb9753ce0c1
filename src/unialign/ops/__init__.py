"""Reduce all pairs of rows in tiles, with exact values and gradients in O(B D) memory and no B x B matrix.

Losses, metrics and measurements use these reductions. The backend is chosen by device and size, or explicitly:

    with unialign.ops.use_backend("reference"):
        loss(embeddings).total.backward()
"""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
