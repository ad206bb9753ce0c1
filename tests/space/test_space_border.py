"""What a space refuses: features, presence, names, metadata and paths of a wrong kind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unialign.errors import CheckpointError, ConfigError, ShapeError
from unialign.space import Space

ROWS, WIDTH = 4, 3
X = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0))
MASK = [True, False, True, True]


@pytest.fixture(params=["standardize", "none"])
def space(request: Any) -> Space:
    torch.manual_seed(0)
    return Space({"a": WIDTH, "b": WIDTH}, dim=5, hidden=7, input_norm=request.param).eval()


BAD_FEATURES: dict[str, Any] = {
    "none": None,
    "ragged": [[1.0], [1.0, 2.0]],
    "texts": [["a", "b", "c"]],
    "objects": np.array([[None] * WIDTH]),
    "long doubles": X.numpy().astype(np.longdouble),
    "complex": X.numpy().astype(complex),
    "booleans": np.ones((ROWS, WIDTH), dtype=bool),
    "width": X[:, :2],
    "vector": X[0],
    "sparse": X.to_sparse(),
    "meta": X.to("meta"),
}


@pytest.mark.parametrize("case", BAD_FEATURES)
def test_features(space: Space, case: str) -> None:
    for call in (space, space.encode):
        with pytest.raises(ShapeError, match=r"'a' .*expect"):
            call({"a": BAD_FEATURES[case]})


@pytest.mark.parametrize("features", [None, 5, X, [X]])
def test_features_that_are_no_mapping(space: Space, features: Any) -> None:
    for call in (space, space.encode):
        with pytest.raises(ShapeError, match="features must map"):
            call(features)


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">f2", "<f8", "f2", ">i4", "u1", "u2"])
def test_arrays_of_any_byte_order_and_size(space: Space, dtype: str) -> None:
    array = (X * 10).numpy().astype(dtype)
    native = torch.tensor(array.astype(np.float32))
    torch.testing.assert_close(space.encode({"a": array}), space.encode({"a": native}))
    torch.testing.assert_close(space({"a": array}), space({"a": native}))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_forward_takes_every_floating_dtype(space: Space, dtype: torch.dtype) -> None:
    torch.testing.assert_close(space({"a": X.to(dtype)}), space({"a": X.to(dtype).float()}))


@pytest.mark.parametrize("make", [np.array, list, torch.tensor])
def test_masks_of_any_array_kind(space: Space, make: Any) -> None:
    for call in (space, space.encode):
        out = call({"a": X}, present={"a": make(MASK), "b": None})["a"]
        assert (out[1] == 0).all()
        assert torch.equal(out, call({"a": X}, present={"a": torch.tensor(MASK)})["a"])


@pytest.mark.parametrize("mask", [None, "x", [True], [[True], [True, False]], np.ones(ROWS), MASK * 2])
def test_masks(space: Space, mask: Any) -> None:
    for call in (space, space.encode):
        with pytest.raises(ShapeError, match=r"present\['a'\] .*expected .*bool"):
            call({"a": X}, present={"a": mask})
        with pytest.raises(ShapeError, match="must map"):
            call({"a": X}, present=np.array(MASK))


@pytest.mark.parametrize("widths", [5, "ab", None, [("a", 3)], {}, {5: 3}, {"a": "3"}, {"a": True}, {"\ud800": 3}])
def test_widths(widths: Any) -> None:
    with pytest.raises(ConfigError):
        Space(widths)


@pytest.mark.parametrize("metadata", [5, "ab", [1]])
def test_metadata_that_are_no_object(metadata: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="JSON object"):
        Space({"a": 2}, metadata=metadata)
    space = Space({"a": 2})
    space.metadata = metadata
    with pytest.raises(ConfigError, match="JSON object"):
        space.save_pretrained(tmp_path / "space")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "metadata",
    [
        *({"training": value} for value in (5, "objective", None, ["objective"], {"objective": None})),
        *({"data": value} for value in (5, "name", None, ["name"], {"name": "\ud800", "fingerprint": 3})),
        {1: "a", "1": "b"},
        {"deep": [[{"a": (1, 2)}]], "text": "\ud800", "none": None},
    ],
)
def test_metadata_of_odd_content_come_back(metadata: Any, tmp_path: Path) -> None:
    Space({"a": 2}, metadata=metadata).save_pretrained(tmp_path)
    back = Space.from_pretrained(tmp_path)
    back.save_pretrained(tmp_path / "again")
    assert Space.from_pretrained(tmp_path / "again").metadata == back.metadata
    assert set(back.metadata) == {str(key) for key in metadata}


PATHS: list[Any] = [None, 5, [1], b"x", "x" * 5000, "a\0b", "\ud800"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: repr(path)[:10])
def test_paths(path: Any) -> None:
    for call in (Space.from_pretrained, Space({"a": 2}).save_pretrained):
        with pytest.raises(CheckpointError, match=r"must be a path|cannot be used|cannot be a path"):
            call(path)
