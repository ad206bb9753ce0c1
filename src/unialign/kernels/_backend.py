"""Which implementation of a kernel runs: chosen by device and size, or pinned."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

from unialign._checks import check_choice

__all__ = ["Backend", "chosen", "pinned"]

Backend = Literal["auto", "reference", "tiled", "compiled", "triton"]

_pinned: ContextVar[Backend] = ContextVar("unialign_kernels", default="auto")


@contextmanager
def pinned(backend: Backend) -> Iterator[None]:
    """Every loss, metric and diagnostic called inside uses this implementation; a backward pass may be outside.

    `reference`: whole B x B matrices and autograd, slow and obvious, with derivatives of every order · `tiled`: torch
    operations on tiles · `compiled`: the same through `torch.compile` · `triton`: CUDA kernels (the extra `triton`) ·
    `auto`: `triton` where it can run, else `compiled` on CUDA and `tiled` elsewhere.

    Raises:
        ConfigError: no such backend. Calls inside raise it where the backend cannot run on their tensors.
    """
    check_choice("backend", backend, get_args(Backend))
    token = _pinned.set(backend)
    try:
        yield
    finally:
        _pinned.reset(token)


def chosen() -> Backend:
    """What is pinned here, `auto` if nothing is."""
    return _pinned.get()
