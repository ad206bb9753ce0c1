"""Numbers about tasks: retrieval, clustering, and how sure one may be of them."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
