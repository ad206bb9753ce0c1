"""Encoders that onnxruntime computes.

Shapes: `n` items, `T` tokens, `D` length of the features.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign._optional import optional_module
from unialign.encoders._built import Batch, BuiltEncoder, stack
from unialign.encoders._encoder import Encoder, Prepared
from unialign.encoders._examples import example_media
from unialign.encoders._model_files import copy_files, file_sha256
from unialign.encoders._reference import make_reference
from unialign.encoders._request import Request
from unialign.encoders._state import check_weights
from unialign.encoders._transformer_model import masked_mean
from unialign.errors import ConfigError, DataError
from unialign.media import Decoding, Kind

MODEL_FILE = "model.onnx"
_LAYERS = ("MatMul", "Gemm")
_MAX_BYTES = 1 << 31


def onnx_encoder(
    request: Request,
    folder: Path,
    file: str,
    media: Kind,
    prepare: Any,
    options: Mapping[str, Any],
    *,
    decoding: Decoding | None = None,
    collate: Callable[[Sequence[Prepared]], Batch] | None = None,
    output: str | None = None,
    penultimate: bool = False,
    pooling: str = "mean",
    license: str = "unknown",
    packages: Sequence[str] = (),
    others: Sequence[str] = (),
) -> Encoder:
    """Build the encoder. `penultimate` uses the input of the last matrix product of the graph. `output` is by default
    the first output.
    """
    path = folder / file
    decoded = Decoding() if decoding is None else decoding
    found = {MODEL_FILE: file_sha256(path)}
    check_weights(found, request.weights, f"the encoder {str(request.spec)!r}")
    session, name = _session(path, output, penultimate)
    inputs = {entry.name: entry for entry in session.get_inputs()}
    single = any(entry.shape[:1] == [1] for entry in inputs.values())

    def run(batch: Batch) -> Tensor:
        arrays = _named({key: value.cpu().numpy() for key, value in batch.items()}, inputs, path)
        items = len(next(iter(arrays.values())))
        # Some graphs have a fixed batch size of 1.
        parts = (
            [{key: value[row : row + 1] for key, value in arrays.items()} for row in range(items)]
            if single
            else [arrays]
        )
        whole = np.concatenate([np.asarray(session.run([name], part)[0], np.float32) for part in parts])
        return _pooled(torch.from_numpy(whole), batch.get("attention_mask"), pooling)

    join = stack if collate is None else collate
    example = example_media(media, decoded, _input_dim(inputs))[:1]
    features = run(join([prepare(value) for value in example]))
    if features.ndim != 2:
        raise ConfigError(
            f"the output {name!r} of {path} has shape {tuple(features.shape)}; expected one vector per item"
        )
    reference = make_reference(
        request.spec,
        media=media,
        dim=features.shape[1],
        architecture={"engine": "onnxruntime", "output": name, "pooling": pooling},
        options=options,
        prepare=prepare.to_json(),
        decoding=decoded,
        weights=found,
        license=license,
        packages=("onnxruntime", *packages),
    )

    def write(target: Path) -> dict[str, dict[str, str]]:
        copied = copy_files(folder, target, others)
        shutil.copyfile(path, target / MODEL_FILE)
        return {"files": {**copied, MODEL_FILE: file_sha256(target / MODEL_FILE)}}

    return BuiltEncoder(reference, decoding=decoded, prepare=prepare, collate=join, forward=run, write=write)


def _session(path: Path, output: str | None, penultimate: bool) -> tuple[Any, str]:
    onnx, runtime = _library("onnx"), _library("onnxruntime")
    if path.stat().st_size >= _MAX_BYTES:
        raise ConfigError(f"{path} has {path.stat().st_size} bytes; expected less than {_MAX_BYTES}")
    try:
        model = onnx.load_from_string(path.read_bytes())
    except Exception as error:  # the parser of protobuf
        raise DataError(f"{path} is not an ONNX file: {' '.join(str(error).split())}") from None
    graph = model.graph
    # The checksum covers only this file.
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(graph)):
        raise ConfigError(f"{path} refers to weights in other files, which is not supported; save it as one file")
    name = _last_layer(graph, path) if penultimate else output or graph.output[0].name
    known = [entry.name for entry in graph.output]
    if name not in known:
        if not any(name in node.output for node in graph.node):
            raise ConfigError(f"{path} has no tensor {name!r}; its outputs are {', '.join(known)}")
        graph.output.append(onnx.ValueInfoProto(name=name))
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = torch.get_num_threads(), 1
    settings.log_severity_level = 3
    try:
        session = runtime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many exceptions
        raise DataError(f"onnxruntime cannot load {path}: {' '.join(str(error).split())}") from error
    return session, name


def _tensors(graph: Any) -> list[Any]:
    constants = [entry.t for node in graph.node for entry in node.attribute if entry.HasField("t")]
    nested = [entry.g for node in graph.node for entry in node.attribute if entry.HasField("g")]
    return [*graph.initializer, *constants, *(tensor for inner in nested for tensor in _tensors(inner))]


def _last_layer(graph: Any, path: Path) -> str:
    weights = {tensor.name for tensor in graph.initializer}
    for node in reversed(graph.node):
        if node.op_type in _LAYERS and len(node.input) > 1 and node.input[1] in weights:
            return str(node.input[0])
    raise ConfigError(f"{path} has no matrix product with a weight matrix; name a tensor with the option output")


def _named(arrays: dict[str, Any], inputs: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the arrays by input name; a graph with one input takes the only array, whatever its name."""
    if len(inputs) == 1:
        (name, entry), (array,) = next(iter(inputs.items())), [next(iter(arrays.values()))]
        return {name: array.astype(_TYPES.get(entry.type, array.dtype))}
    if "input_ids" in arrays and "token_type_ids" in inputs:
        arrays["token_type_ids"] = np.zeros_like(arrays["input_ids"])
    if missing := [name for name in inputs if name not in arrays]:
        raise ConfigError(
            f"{path} has the input {missing[0]!r}, for which there is no value; expected {', '.join(arrays)}"
        )
    return {name: arrays[name].astype(_TYPES.get(entry.type, arrays[name].dtype)) for name, entry in inputs.items()}


_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


def _pooled(whole: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    if whole.ndim == 4:
        return whole.mean((2, 3))
    if whole.ndim == 3:
        return whole[:, 0] if pooling == "cls" else masked_mean(whole, mask)
    return whole


def _input_dim(inputs: Mapping[str, Any]) -> int:
    shape = next(iter(inputs.values())).shape
    return shape[1] if len(shape) > 1 and isinstance(shape[1], int) else 1


def _library(name: str) -> Any:
    return optional_module(name, "encoding with ONNX files", "onnx")
