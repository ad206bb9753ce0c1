"""The command line: one module per command, each with `run(options) -> int`."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
