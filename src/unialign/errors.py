"""The exceptions a user may catch. Every message names what was wrong, what was expected and what to do."""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DistributedError",
    "MissingDependencyError",
    "NonFiniteError",
    "ShapeError",
    "UniAlignError",
]


class UniAlignError(Exception):
    """Base of every expected error of this package."""


class ShapeError(UniAlignError, ValueError):
    """A tensor or array has the wrong shape, dtype or number of rows."""


class NonFiniteError(UniAlignError, ValueError):
    """A value is NaN or infinite, or a row has no direction because its norm is zero."""


class MissingDependencyError(UniAlignError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class DataError(UniAlignError, ValueError):
    """A store, data set or result file is missing, altered, truncated or does not fit its description."""


class ConfigError(UniAlignError, ValueError):
    """A setting has a value that is unknown, out of range or in conflict with another one."""


class CheckpointError(UniAlignError, RuntimeError):
    """A checkpoint or saved space is missing, torn, altered or of a refused kind (pickles are never read)."""


class DistributedError(UniAlignError, RuntimeError):
    """Another process of a distributed job failed, ended or never came; the message names it where it is known."""
