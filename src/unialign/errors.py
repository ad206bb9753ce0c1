"""Public exceptions. Error messages state the cause, the expected value and a fix."""

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
    """Base class of the exceptions of this package."""


class ShapeError(UniAlignError, ValueError):
    """A tensor or array has the wrong shape, dtype or number of rows."""


class NonFiniteError(UniAlignError, ValueError):
    """A value is NaN or infinite, or a row has norm zero and thus no direction."""


class MissingDependencyError(UniAlignError, ImportError):
    """An optional dependency is not installed; the message names the extra to install."""


class DataError(UniAlignError, ValueError):
    """A store, data set or result file is missing, altered, truncated or inconsistent."""


class ConfigError(UniAlignError, ValueError):
    """An option is unknown, out of range or in conflict with another option."""


class CheckpointError(UniAlignError, RuntimeError):
    """A checkpoint or saved space is missing, incomplete, altered, or an unsupported pickle."""


class DistributedError(UniAlignError, RuntimeError):
    """Another process of a distributed job failed, exited or did not reply; the message names that process if known."""
