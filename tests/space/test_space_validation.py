"""Test the input validation of a space: features, presence, names, metadata and paths."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unialign.errors import CheckpointError, ConfigError, ShapeError
from unialign.space import Space

ROWS, DIM = 4, 3
X = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(0))
MASK = [True, False, True, True]


@pytest.fixture(params=["standardize", "none"])
def space(request: Any) -> Space:
    torch.manual_seed(0)
    return Space({"a": DIM, "b": DIM}, dim=5, hidden=7, input_norm=request.param).eval()


BAD_FEATURES: dict[str, Any] = {
    "none": None,
    "ragged": [[1.0], [1.0, 2.0]],
    "texts": [["a", "b", "c"]],
    "objects": np.array([[None] * DIM]),
    "long doubles": X.numpy().astype(np.longdouble),
    "complex": X.numpy().astype(complex),
    "booleans": np.ones((ROWS, DIM), dtype=bool),
    "dim": X[:, :2],
    "vector": X[0],
    "sparse": X.to_sparse(),
    "meta": X.to("meta"),
}


def test_features(space: Space) -> None:
    for call in (space, space.encode):
        for features in BAD_FEATURES.values():
            with pytest.raises(ShapeError, match=r"'a' .*expect"):
                call({"a": features})
        for no_mapping in (None, 5, X, [X]):
            with pytest.raises(ShapeError, match="features must map"):
                call(no_mapping)


def test_arrays_of_any_byte_order_and_size(space: Space) -> None:
    for dtype in (">f4", ">f8", ">f2", "<f8", "f2", ">i4", "u1", "u2"):
        array = (X * 10).numpy().astype(dtype)
        native = torch.tensor(array.astype(np.float32))
        torch.testing.assert_close(space.encode({"a": array}), space.encode({"a": native}))
        torch.testing.assert_close(space({"a": array}), space({"a": native}))


def test_forward_accepts_every_floating_dtype(space: Space) -> None:
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        torch.testing.assert_close(space({"a": X.to(dtype)}), space({"a": X.to(dtype).float()}))


def test_masks_of_any_array_type(space: Space) -> None:
    for make in (np.array, list, torch.tensor):
        for call in (space, space.encode):
            out = call({"a": X}, present={"a": make(MASK), "b": None})["a"]
            assert (out[1] == 0).all()
            assert torch.equal(out, call({"a": X}, present={"a": torch.tensor(MASK)})["a"])


def test_masks(space: Space) -> None:
    masks: list[Any] = [None, "x", [True], [[True], [True, False]], np.ones(ROWS), MASK * 2]
    for call in (space, space.encode):
        for mask in masks:
            with pytest.raises(ShapeError, match=r"present\['a'\] .*expected .*bool"):
                call({"a": X}, present={"a": mask})
        with pytest.raises(ShapeError, match="must map"):
            call({"a": X}, present=np.array(MASK))


def test_dims() -> None:
    invalid: list[Any] = [5, "ab", None, [("a", 3)], {}, {5: 3}, {"a": "3"}, {"a": True}, {"\ud800": 3}]
    for dims in invalid:
        with pytest.raises(ConfigError):
            Space(dims)


def test_metadata_must_be_an_object(tmp_path: Path) -> None:
    invalid: list[Any] = [5, "ab", [1]]
    for metadata in invalid:
        with pytest.raises(ConfigError, match="JSON object"):
            Space({"a": 2}, metadata=metadata)
        space = Space({"a": 2})
        space.metadata = metadata
        with pytest.raises(ConfigError, match="JSON object"):
            space.save_pretrained(tmp_path / "space")
    assert not list(tmp_path.iterdir())


def test_metadata_of_odd_content_round_trip(tmp_path: Path) -> None:
    odd: list[Any] = [
        *({"training": value} for value in (5, "objective", None, ["objective"], {"objective": None})),
        *({"data": value} for value in (5, "name", None, ["name"], {"name": "\ud800", "fingerprint": 3})),
        {1: "a", "1": "b"},
        {"deep": [[{"a": (1, 2)}]], "text": "\ud800", "none": None},
    ]
    for metadata in odd:
        Space({"a": 2}, metadata=metadata).save_pretrained(tmp_path)
        back = Space.from_pretrained(tmp_path)
        back.save_pretrained(tmp_path / "again")
        assert Space.from_pretrained(tmp_path / "again").metadata == back.metadata
        assert set(back.metadata) == {str(key) for key in metadata}


PATHS: list[Any] = [None, 5, [1], b"x", "x" * 5000, "a\0b", "\ud800"]


def test_paths() -> None:
    for call in (Space.from_pretrained, Space({"a": 2}).save_pretrained):
        for path in PATHS:
            with pytest.raises(CheckpointError, match=r"must be a path|cannot be used|not a valid path"):
                call(path)
