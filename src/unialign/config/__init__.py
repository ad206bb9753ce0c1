"""Settings of commands and training runs as frozen dataclasses, shared by Python, YAML files and command-line options.

Importing this package imports neither torch nor numpy.
"""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
