"""Numbers about a space: how far its modalities lie apart, how it is spread, and how the forces on it oppose."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
