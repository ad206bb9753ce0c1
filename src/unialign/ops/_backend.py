"""Choose the backend of a reduction by device and size, unless `use_backend` sets it."""

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
    """Set the backend of every loss, metric and measurement in a `with` block, including backward passes.

    - `reference`: full B x B matrices and autograd; slow, but with higher-order derivatives
    - `tiled`: torch operations on tiles
    - `compiled`: row sums with `torch.compile`, which takes half a minute on the first call
    - `triton`: CUDA kernels
    - `auto`: `triton` on CUDA if it is installed, else `tiled`

    `compiled` and `triton` implement InfoNCE, and uniformity with kernels that are log-linear in the cosine (all except
    `geodesic`); other objectives fall back to `tiled`. `triton` computes float32 products as TF32 if
    `torch.backends.cuda.matmul.allow_tf32` is set; cosines are then accurate to 1e-3.

    Raises:
        ConfigError: the backend is unknown. Calls inside the block also raise ConfigError if the backend does not
            support the given tensors.
        MissingDependencyError: the backend is `triton`, but Triton is not installed.
    """
    check_choice("backend", backend, get_args(Backend))
    token = _backend.set(backend)
    try:
        yield
    finally:
        _backend.reset(token)


def current_backend() -> Backend:
    return _backend.get()


def rowwise_backend(z: Tensor, *, sharded: bool) -> Backend | None:
    """Return the backend that computes row sums; None if square tiles are used instead."""
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
    return importlib.util.find_spec("triton") is not None


def _check_triton(z: Tensor) -> None:
    if not has_triton():
        raise MissingDependencyError("the backend 'triton' needs Triton: pip install 'unialign[triton]'")
    if z.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ConfigError("the backend 'triton' needs GPU tensors, got CPU tensors; move them to a GPU or use 'tiled'")
    if z.dtype == torch.float64:
        raise ConfigError("the backend 'triton' does not support float64 tensors; use 'tiled'")
    if z.shape[-1] > TRITON_MAX_DIM:
        raise ConfigError(
            f"the backend 'triton' supports dims of up to {TRITON_MAX_DIM}, got {z.shape[-1]}; use 'tiled'"
        )
