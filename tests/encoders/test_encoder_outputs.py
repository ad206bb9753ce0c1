"""Test that outputs of encoders and inputs of encode_media are checked."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from unialign.encoders import check_witness, create, encode_media, encode_prepared, wrap
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError


class Applied(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: torch.Tensor) -> Any:
        return self.function(values)


def as_values(vector: Any) -> dict[str, Any]:
    return {"values": np.asarray(vector, np.float32)}


def encoder_of(function: Any, dim: int = 3, prepare: Any = as_values) -> Any:
    return wrap(Applied(function), media="array", dim=dim, prepare=prepare, name="mine")


VECTORS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


@pytest.mark.parametrize(
    ("function", "dim", "message"),
    [
        (lambda values: values[:, :1], 5, r"shape \(2, 1\) for 2 items, expected \(2, 5\)"),
        (lambda values: values.mean(0), 3, r"shape \(3,\) for 2 items, expected \(2, 3\)"),
        (lambda values: values[:1], 3, r"shape \(1, 3\) for 2 items, expected \(2, 3\)"),
        (lambda values: values.to(torch.complex64), 3, "complex features"),
        (lambda values: (values,), 3, "returned tuple, expected a tensor"),
    ],
)
def test_features_of_another_shape_are_not_broadcast(function, dim, message):
    encoder = encoder_of(function, dim)
    with pytest.raises(ShapeError, match=message):
        encode_media(encoder, VECTORS)
    with pytest.raises(ShapeError, match=message):
        encode_prepared(encoder, [as_values(vector) for vector in VECTORS])


def test_features_that_are_not_finite_name_the_row():
    encoder = encoder_of(lambda values: values / (values - 4))
    with pytest.raises(NonFiniteError, match=r"mine.* for row 1"):
        encode_media(encoder, VECTORS)


def test_a_module_that_raises_is_named():
    with pytest.raises(ConfigError, match=r"the module 'mine'.*raises KeyError: 'x'.*values \(2, 3\).*\(n, 3\)"):
        encode_media(encoder_of(lambda values: {}["x"]), VECTORS)
    encoder = encoder_of(lambda values: values, prepare=lambda vector: {"other": np.asarray(vector, np.float32)})
    with pytest.raises(ConfigError, match=r"raises TypeError.*other \(2, 3\)"):
        encode_media(encoder, VECTORS)


def test_prepare_that_raises_names_the_row():
    encoder = encoder_of(lambda values: values, prepare=lambda vector: {"values": np.asarray(vector[5])})
    with pytest.raises(ConfigError, match=r"row 1 cannot be prepared .*mine.*IndexError.*expected a vector of numbers"):
        encode_media(encoder, [None, VECTORS[0]])


@pytest.mark.parametrize("media", ["abc", b"abc", {"a": 1}, 3])
def test_a_single_value_is_not_a_list_of_media(media):
    with pytest.raises(ConfigError, match=r"media must be a list with one decoded value per row.*pass \[x\]"):
        encode_media(create("builtin:chars"), media)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("builtin:chars", b"abc", "row 1 has the type bytes.*'text' must be a string"),
        ("builtin:color", "a.png", "row 1 has the type str.*'image' must be a uint8 array"),
        ("builtin:logmel", np.zeros(8), "row 1 has the type ndarray.*'audio' must be unialign.media.Audio"),
        ("builtin:identity?dim=3", "abc", "row 1 has the type str.*'array' must be a vector"),
    ],
)
def test_values_of_another_type_name_row_and_kind(name, value, expected):
    with pytest.raises(ConfigError, match=expected):
        encode_media(create(name), [None, value])


@pytest.mark.parametrize("stored", ["abc", ["a"] * 64, [None], {"a": 1}, None])
def test_a_witness_of_another_type_is_a_data_error(stored):
    with pytest.raises(DataError, match="must have 64 finite numbers"):
        check_witness(create("builtin:chars"), stored)


def test_a_file_in_place_of_the_folder_of_a_model_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "h.py").write_text("")
    with pytest.raises(DataError, match=r"needs a folder, but \./h\.py is a file; .*ends with \.onnx"):
        create("onnx:./h.py?media=image")
    with pytest.raises(DataError, match=r"needs the folder \./gone, which does not exist"):
        create("onnx:./gone?media=image")


def test_an_encoder_that_rejects_its_example_is_told_to_pass_another():
    encoder = encoder_of(lambda values: values, prepare=lambda vector: {"values": np.asarray(vector[5])})
    with pytest.raises(
        ConfigError, match=r"features of example inputs.*IndexError.*pass wrap\(\.\.\., example=value\)"
    ):
        _ = encoder.reference
