"""Codes of broken cells, and error numbers that do not depend on the data."""

import errno

__all__ = ["CODES", "TRANSIENT"]

# Codes of a MediaError, which state why a cell is broken.
CODES: tuple[str, ...] = (
    "missing-file",
    "empty",
    "too-large",
    "too-many-pixels",
    "too-long",
    "unreadable",
    "not-a-file",
    "link-outside",
    "link-loop",
    "undecodable",
    "truncated",
    "bad-utf8",
    "not-finite",
    "wrong-shape",
    "timeout",
    "changed",
    "zero-features",
)

# Error numbers (errno) of failures of the machine or of the file system. These are raised as OSError and never recorded
# as a broken cell, since the same cell may be readable later.
TRANSIENT: frozenset[int] = frozenset(
    getattr(errno, name)
    for name in (
        "EIO",
        "ESTALE",
        "ETIMEDOUT",
        "EMFILE",
        "ENFILE",
        "ENOMEM",
        "EAGAIN",
        "EREMOTEIO",
        "ECONNRESET",
        "ENOTCONN",
        "ENETDOWN",
        "ENETUNREACH",
        "EHOSTDOWN",
        "EHOSTUNREACH",
    )
    if hasattr(errno, name)
)
