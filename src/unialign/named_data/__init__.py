"""Item tables of data sets that install from package registries; media stay where the package puts them."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
