"""Settings of every command and training as frozen dataclasses: one source for Python, YAML files and options.

Importing this package imports neither torch nor numpy.
"""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
