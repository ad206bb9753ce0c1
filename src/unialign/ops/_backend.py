"""Choose the implementation of a reduction by device and size, or return the one set by `use_backend`."""

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

Backend = Literal["auto", "reference", "tiled", "compiled", "triton"]

TRITON_MAX_DIM = 2048

_backend: ContextVar[Backend] = ContextVar("unialign_backend", default="auto")


@contextmanager
def use_backend(backend: Backend) -> Iterator[None]:
    """Set the implementation of every loss, metric and measurement in a `with` block, including backward passes.

    `reference`: full B x B matrices and autograd; slow, with higher-order derivatives · `tiled`: torch operations on
    tiles · `compiled`: row sums through `torch.compile`, which takes half a minute on the first call · `triton`: CUDA
    kernels · `auto`: `triton` on CUDA where it is installed, else `tiled`. `compiled` and `triton` implement InfoNCE
    and uniformity with a kernel that is log-linear in the cosine (all but `geodesic`); the other objectives run as
    `tiled` under them. `triton` computes float32 products as TF32 if `torch.backends.cuda.matmul.allow_tf32` is set:
    cosines are then accurate to 1e-3.

    Raises:
        ConfigError: unknown backend. Calls inside the block also raise ConfigError if the backend does not support
            their tensors.
        MissingDependencyError: backend `triton` without the package installed.
    """
    check_choice("backend", backend, get_args(Backend))
    token = _backend.set(backend)
    try:
        yield
    finally:
        _backend.reset(token)


def current_backend() -> Backend:
    """Return the backend set by `use_backend`, or `auto` if none is set."""
    return _backend.get()


def rowwise_backend(z: Tensor, *, sharded: bool) -> Backend | None:
    """Return the backend of `_row_sums` for these rows; None if they are reduced in square tiles instead.

    Args:
        sharded: whether the rows are sharded over processes, each of which computes the sums of its own rows.
    """
    backend = current_backend()
    if backend == "compiled":
        return backend
    if backend == "triton":
        _check_triton(z)
        return backend
    supported = z.device.type == "cuda" and z.dtype != torch.float64 and z.shape[-1] <= TRITON_MAX_DIM
    if backend == "auto" and supported and has_triton():
        return "triton"
    return "tiled" if sharded and backend != "reference" else None


@cache
def has_triton() -> bool:
    """Return whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def _check_triton(z: Tensor) -> None:
    if not has_triton():
        raise MissingDependencyError("the backend 'triton' needs: pip install 'unialign[triton]'")
    if z.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ConfigError("the backend 'triton' needs tensors on a GPU, got the CPU; use 'tiled', or move them")
    if z.dtype == torch.float64:
        raise ConfigError("the backend 'triton' sums in float32, but the rows are float64; use 'tiled'")
    if z.shape[-1] > TRITON_MAX_DIM:
        raise ConfigError(
            f"the backend 'triton' takes rows of up to {TRITON_MAX_DIM} columns, got {z.shape[-1]}; use 'tiled'"
        )
