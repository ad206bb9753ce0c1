"""Which implementation of a kernel runs: chosen by device and size, or pinned."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from unialign._checks import check_choice
from unialign.errors import ConfigError, MissingDependencyError

__all__ = ["TRITON_WIDTH", "Backend", "chosen", "rowwise_backend", "use_backend"]

Backend = Literal["auto", "reference", "tiled", "compiled", "triton"]

TRITON_WIDTH = 2048

_pinned: ContextVar[Backend] = ContextVar("unialign_kernels", default="auto")


@contextmanager
def use_backend(backend: Backend) -> Iterator[None]:
    """Every loss, metric and diagnostic called inside uses this implementation; a backward pass may be outside.

    `reference`: whole B x B matrices and autograd, slow and obvious, with derivatives of every order · `tiled`: torch
    operations on tiles · `compiled`: row sums through `torch.compile`, half a minute on the first call · `triton`: CUDA
    kernels · `auto`: `triton` on CUDA where it is installed, else `tiled`. `compiled` and `triton` know uniformity with
    a kernel of the cosine's line (all but `geodesic`) and InfoNCE; the rest runs as `tiled` under them. `triton` forms
    float32 products as TF32 where `torch.backends.cuda.matmul.allow_tf32` says so: cosines are then right to 1e-3.

    Raises:
        ConfigError: no such backend. Calls inside raise it where the backend cannot run on their tensors.
        MissingDependencyError: `triton` is pinned and not installed.
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


def rowwise_backend(z: Tensor, *, divided: bool) -> Backend | None:
    """The backend of `_rowwise` for these rows, which sums whole rows of a line's exponentials; None for the others.

    Args:
        divided: whether the rows lie on several processes, each of which answers for its own.
    """
    backend = chosen()
    if backend == "compiled":
        return backend
    if backend == "triton":
        _check_triton(z)
        return backend
    suits = z.device.type == "cuda" and z.dtype != torch.float64 and z.shape[-1] <= TRITON_WIDTH
    if backend == "auto" and suits and _has_triton():
        return "triton"
    return "tiled" if divided and backend != "reference" else None


def _check_triton(z: Tensor) -> None:
    if not _has_triton():
        raise MissingDependencyError("kernels 'triton' are pinned and need: pip install 'unialign[triton]'")
    if z.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ConfigError("kernels 'triton' are pinned, but the tensors are on the CPU; pin 'tiled', or move them")
    if z.dtype == torch.float64:
        raise ConfigError("kernels 'triton' are pinned, which sum in float32, but the rows are float64; pin 'tiled'")
    if z.shape[-1] > TRITON_WIDTH:
        raise ConfigError(f"kernels 'triton' take rows up to {TRITON_WIDTH} wide, got {z.shape[-1]}; pin 'tiled'")


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
