"""An HTTP service for indexes: search, items, media, jobs and a web page, with limits that are checked first."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
