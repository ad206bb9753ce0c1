"""Write and read the files of ONNX and of torch.export."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unialign._optional import optional_module
from unialign.errors import ConfigError
from unialign.space._exported import Exported


def write_torch(exported: Exported, path: Path) -> None:
    dynamic = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in exported.dynamic)
    with _tracing():
        # The modules take any number of tensors, so their only argument is a tuple.
        program = torch.export.export(exported.module, exported.example, dynamic_shapes=(dynamic,))
        torch.export.save(program, path)


def read_torch(path: Path) -> Callable[..., Tensor]:
    module: Callable[..., Tensor] = torch.export.load(path).module()
    return module


def write_onnx(exported: Exported, path: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        _needed(name)
    with _tracing():
        program = torch.onnx.export(
            exported.module,
            exported.example,
            input_names=list(exported.inputs),
            output_names=["embedding"],
            dynamic_shapes=(exported.dynamic,),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(path))


def read_onnx(path: Path) -> Callable[..., Tensor]:
    runtime = _needed("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        feeds = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feeds)[0])

    return run


def _needed(name: str) -> Any:
    return optional_module(name, "the format 'onnx'", "export")


@contextmanager
def _tracing() -> Iterator[None]:
    """Hide messages about optional libraries, and raise a single error for a module that cannot be traced."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except OSError:
        raise
    except Exception as error:  # torch.export raises many exceptions
        first = " ".join(str(error).split())[:300]
        raise ConfigError(f"torch.export cannot trace the modality: {type(error).__name__}: {first}") from error
    finally:
        log.setLevel(level)
