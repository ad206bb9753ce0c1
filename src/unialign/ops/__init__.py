"""Sums over all pairs of rows in tiles: exact value and gradient, O(B D) memory, nothing of size B x B.

Losses, metrics and diagnostics are built on these. Which implementation runs is chosen by device and size, and can be
pinned:

    with unialign.ops.use_backend("reference"):
        loss(embeddings).total.backward()
"""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
