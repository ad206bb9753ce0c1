"""Learn, measure and search one embedding space for any number of modalities.

Importing this package imports neither torch nor NumPy; public names are loaded on first use.
"""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
