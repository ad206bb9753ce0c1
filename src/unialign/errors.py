"""Public exceptions. Error messages state the cause, the expected value and a fix."""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DistributedError",
    "MediaError",
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


class MediaError(DataError):
    """An image, text, sound, video or vector cannot be read or decoded.

    Attributes:
        code: one of `unialign.media.CODES`.
        detail: what was found, without the code and the place.
        where: the file, table cell or value; empty if the caller knows it.
    """

    def __init__(self, code: str, detail: str, where: str = "") -> None:
        super().__init__(f"{where}: {detail} ({code})" if where else f"{detail} ({code})")
        self.code, self.detail, self.where = code, detail, where

    def __reduce__(self) -> tuple[type["MediaError"], tuple[str, str, str]]:
        return type(self), (self.code, self.detail, self.where)


class ConfigError(UniAlignError, ValueError):
    """An option is unknown, out of range or in conflict with another option."""


class CheckpointError(UniAlignError, RuntimeError):
    """A checkpoint or saved space is missing, incomplete, altered, or an unsupported pickle."""


class DistributedError(UniAlignError, RuntimeError):
    """Another process of a distributed job failed, exited or did not reply; the message names that process if known."""
