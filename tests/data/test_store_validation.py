"""Test that `write` and `from_arrays` reject the same invalid arguments."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError, UniAlignError

N = 6


def arrays(**more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {"image": rng.normal(size=(N, 4)).astype(np.float32), "text": rng.normal(size=(N, 2)), **more}


def with_row(row: int, value: Any, dtype: Any = np.float32) -> Any:
    array = np.ones((N, 3), dtype=dtype)
    array[row] = value
    return array


ones = np.ones((N, 2), dtype=np.float32)
bad_columns: dict[str, Any] = {
    "no columns": ({}, ShapeError, "at least one column"),
    "unequal rows": (arrays(audio=ones[:5]), ShapeError, "'audio' has 5 rows, 'image' has 6.*present="),
    "one-dimensional": (arrays(audio=np.ones(N)), ShapeError, r"'audio' has shape \(6,\)"),
    "three-dimensional": (arrays(audio=np.ones((N, 2, 2))), ShapeError, r"'audio' has shape \(6, 2, 2\)"),
    "no items": ({"audio": ones[:0]}, ShapeError, r"'audio' has shape \(0, 2\)"),
    "no dim": (arrays(audio=ones[:, :0]), ShapeError, r"'audio' has shape \(6, 0\)"),
    "integers": (
        arrays(audio=np.ones((N, 2), dtype=np.int32)),
        ShapeError,
        "'audio' has dtype int32, expected float16",
    ),
    "booleans": (arrays(audio=ones > 0), ShapeError, "'audio' has dtype bool"),
    "complex": (arrays(audio=ones * 1j), ShapeError, "'audio' has dtype complex"),
    "long double": (arrays(audio=ones.astype(np.longdouble)), ShapeError, "'audio' has dtype"),
    "objects": (arrays(audio=ones.astype(object)), ShapeError, "'audio' has dtype object"),
    "strings": (arrays(audio=[["a", "b"]] * N), ShapeError, "'audio' has dtype <U1"),
    "structured": (arrays(audio=np.zeros((N, 2), dtype=[("a", "f4")])), ShapeError, "'audio' has dtype"),
    "ragged": (arrays(audio=[[1.0], [1.0, 2.0]]), ShapeError, "'audio' cannot be converted to an array"),
    "bfloat16 tensor": (
        arrays(audio=torch.ones(N, 2, dtype=torch.bfloat16)),
        ShapeError,
        "'audio' cannot be converted to an array",
    ),
    "NaN": (arrays(audio=with_row(4, [1, np.nan, 1])), NonFiniteError, "'audio', row 4 holds nan at position 1"),
    "infinite": (arrays(audio=with_row(2, [1, 1, -np.inf])), NonFiniteError, "'audio', row 2 holds -inf at position 2"),
    "float16 overflow": (arrays(audio=with_row(1, np.inf, np.float16)), NonFiniteError, "row 1 holds inf"),
    "zeros": (arrays(audio=with_row(5, 0)), NonFiniteError, "'audio', row 5 holds only zeros.*present="),
}


def test_invalid_columns(tmp_path: Path) -> None:
    for columns, error, message in bad_columns.values():
        for make in (EmbeddingStore.from_arrays, partial(EmbeddingStore.write, tmp_path / "s")):
            with pytest.raises(error, match=message) as caught:
                make(columns)
            assert isinstance(caught.value, UniAlignError)
    assert list(tmp_path.iterdir()) == []


def test_names_must_be_valid_file_names(tmp_path: Path) -> None:
    texts = ["", ".", "..", "a..b", ".hidden", "a/b", "../a", "/a", "a\\b", "a b", "é", "a\n", "a\0", "C:", "x" * 101]
    names: list[Any] = [*texts, 7, None]
    for name in names:
        with pytest.raises(DataError, match=r"column name .* cannot be a file name"):
            EmbeddingStore.write(tmp_path / "s", {name: ones})
        with pytest.raises(DataError, match=r"asset name .* cannot be a file name"):
            EmbeddingStore.write(tmp_path / "s", {"x": ones}, assets={name: b""})
    assert list(tmp_path.iterdir()) == []


def test_valid_names(tmp_path: Path) -> None:
    for name in ("image", "text-en_GB", "clip.v2", "3d", "_", "-", "x" * 100):
        assert EmbeddingStore.write(tmp_path / "s", {name: ones}, overwrite="replace").array(name).shape == (N, 2)


def test_names_that_differ_in_case_only() -> None:
    with pytest.raises(DataError, match="'Image' and 'image' differ only in case"):
        EmbeddingStore.from_arrays({"Image": ones, "image": ones})


bad_options: dict[str, Any] = {
    "present of nothing": (
        {"present": {"smell": ones[:, 0] > 0}},
        ConfigError,
        "'smell'; the store has 'image', 'text'",
    ),
    "present as integers": (
        {"present": {"text": np.ones(N, dtype=int)}},
        ShapeError,
        "present of 'text' has dtype int64",
    ),
    "present too short": (
        {"present": {"text": np.ones(5, dtype=bool)}},
        ShapeError,
        r"\(5,\), expected bool and \(6,\)",
    ),
    "ids as floats": ({"ids": np.arange(6.0)}, ShapeError, "ids has dtype float64"),
    "ids too many": ({"ids": np.arange(7)}, ShapeError, r"ids .*\(7,\), expected integers or text and \(6,\)"),
    "ids too large": ({"ids": np.full(N, 2**63, dtype=np.uint64)}, DataError, "ids: row 0 holds 9223372036854775808"),
    "group as strings": ({"groups": list("abcdef")}, ShapeError, "groups has dtype <U1"),
    "group crosses": (
        {"groups": [4, 5, 6, 7, 5, 8], "split": [0, 0, 0, 1, 2, 2]},
        DataError,
        "group 5 crosses splits: row 1 is in 'train', row 4 in 'test'.*random_split",
    ),
    "labels below": ({"labels": [0, 1, -2, 0, 0, 0]}, DataError, "labels: row 2 holds -2.*-1 = unlabeled"),
    "labels above": (
        {"labels": [0, 1, 2, 0, 0, 0], "label_names": ["a", "b"]},
        DataError,
        "labels: row 2 holds 2, expected -1 to 1",
    ),
    "labels two-dimensional": ({"labels": np.ones((N, 1), dtype=int)}, ShapeError, r"labels .*\(6, 1\)"),
    "split unknown": (
        {"split": ["train"] * 5 + ["dev"]},
        DataError,
        "split: row 5 holds 'dev', .*'train', 'val', 'test'",
    ),
    "split None": ({"split": ["train"] * 5 + [None]}, DataError, "split: row 5 holds None"),
    "split code": ({"split": [0, 1, 2, 3, 0, 0]}, DataError, "split: row 3 holds 3, expected 0 to 2"),
    "split code that wraps": ({"split": [0, 1, 2, 256, 0, 0]}, DataError, "split: row 3 holds 256"),
    "split as floats": ({"split": np.zeros(N)}, ShapeError, "split has dtype float64"),
    "split too short": ({"split": ["train"] * 5}, ShapeError, r"split .*\(5,\)"),
    "names too few": ({"names": ["a"] * 5}, ShapeError, "names has 5 entries for 6 items"),
    "names one string": ({"names": "abcdef"}, DataError, "names is 'abcdef'; expected a sequence of strings"),
    "names not strings": ({"names": [1, 2, 3, 4, 5, 6]}, DataError, "names: entry 0 is 1"),
    "label names not strings": ({"label_names": [b"a"]}, DataError, "label_names: entry 0"),
    "provenance not JSON": ({"provenance": {"model": object()}}, DataError, "provenance must be a JSON object"),
    "provenance NaN": ({"provenance": {"x": float("nan")}}, DataError, "provenance must be a JSON object"),
    "provenance of nothing": ({"provenance": {"columns": {"smell": 1}}}, ConfigError, "'smell'"),
    "provenance columns": ({"provenance": {"columns": ["image"]}}, DataError, "provenance.'columns'."),
    "modalities unknown": ({"default_modalities": ["image", "smell"]}, ConfigError, "'smell'; the store has"),
    "modalities none": ({"default_modalities": []}, ConfigError, "at least one"),
    "unknown option": ({"lables": [0] * N}, ConfigError, "unknown option of a store 'lables'.*did you mean 'labels'"),
    "asset not bytes": ({"assets": {"a.txt": "text"}}, DataError, "asset 'a.txt' must be bytes, got str"),
}


def test_invalid_options() -> None:
    for options, error, message in bad_options.values():
        with pytest.raises(error, match=message):
            EmbeddingStore.from_arrays(arrays(), **options)


def test_absent_rows_are_not_checked() -> None:
    present = np.arange(N) != 4
    store = EmbeddingStore.from_arrays(arrays(audio=with_row(4, np.nan)), present={"audio": present})
    assert store.present("audio").tolist() == present.tolist()
    with pytest.raises(NonFiniteError, match="row 4"):
        EmbeddingStore.from_arrays(arrays(audio=with_row(4, np.nan)), present={"audio": ~present})


def test_the_row_is_right_beyond_the_first_chunk() -> None:
    array = np.ones((5000, 512))
    array[4321, 17] = np.nan
    with pytest.raises(NonFiniteError, match="row 4321 holds nan at position 17"):
        EmbeddingStore.from_arrays({"x": array})


def test_extreme_finite_rows_are_accepted() -> None:
    EmbeddingStore.from_arrays({"x": with_row(0, 1e308, np.float64), "y": with_row(0, [5e-324, 0, 0], np.float64)})


@pytest.mark.filterwarnings("ignore:id 7 crosses splits")
def test_equal_ids_are_accepted() -> None:
    assert EmbeddingStore.from_arrays(arrays(), ids=[7] * N, split=[0, 1, 2, 0, 1, 2]).ids.tolist() == [7] * N


def test_json_that_changes_in_a_round_trip_reads_the_same_in_memory_and_on_disk(tmp_path: Path) -> None:
    provenance = {"sizes": (1, 2), "by_number": {10: "a", 9: "b"}}
    store = EmbeddingStore.write(tmp_path / "s", arrays(), provenance=provenance)
    store.verify()
    assert store.provenance == {"sizes": [1, 2], "by_number": {"10": "a", "9": "b"}}
    assert EmbeddingStore.from_arrays(arrays(), provenance=provenance).fingerprint == store.fingerprint


def test_an_id_in_two_splits_is_a_warning():
    """Regression test: captions in both the training and the test split inflated results without a warning."""
    columns = {"a": np.ones((4, 2)), "b": np.ones((4, 2))}
    with pytest.warns(UserWarning, match="id 7 crosses splits: row 1 is in 'train', row 2 in 'test'"):
        EmbeddingStore.from_arrays(columns, ids=[5, 7, 7, 8], split=["train", "train", "test", "test"])
