"""Item tables of data sets that are installed from package registries; media stay in the folder of the package."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
