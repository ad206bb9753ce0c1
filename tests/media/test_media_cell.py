"""Test cells, options and limits as values: JSON, checks and messages."""

import pickle
from typing import Any

import pytest
from hypothesis import given, strategies as st

from unialign.errors import ConfigError, DataError, MediaError
from unialign.media import CODES, KINDS, VERSIONS, Cell, Decoding, MediaLimits

NAMES = st.text(min_size=1).filter(lambda text: "\0" not in text and not text.startswith("/"))
WHOLE = st.integers(0, 2**63 - 1)
SPANS = st.tuples(st.floats(0, 1e6), st.floats(1e-3, 1e6)).map(lambda pair: (pair[0], pair[0] + pair[1]))
CELLS = st.one_of(
    st.builds(lambda text: ("text", Cell(value=text)), st.text()),
    st.builds(lambda row: ("array", Cell(value=tuple(row))), st.lists(st.floats(allow_nan=False), min_size=1)),
    st.builds(
        lambda path, at, span, root: ("audio", Cell(path=path, at=at, span=span, root=root)),
        NAMES,
        st.none() | st.tuples(WHOLE, WHOLE),
        st.none() | SPANS,
        WHOLE,
    ),
    st.builds(lambda path, key, row: ("array", Cell(array=path, key=key, row=row)), NAMES, st.none() | NAMES, WHOLE),
    st.builds(lambda path, column, row: ("image", Cell(table=path, column=column, row=row)), NAMES, NAMES, WHOLE),
)


@given(CELLS)
def test_cells_survive_json(pair: tuple[Any, Cell]) -> None:
    kind, cell = pair
    assert Cell.from_json(kind, cell.to_json()) == cell
    assert "root" not in cell.to_json() or cell.root > 0


def test_the_json_of_cells_is_that_of_item_tables() -> None:
    for kind, value in {
        "image": {"path": "animals/cat.png"},
        "text": {"value": "A cat."},
        "audio": {"path": "s.tar", "at": [512, 9120], "name": "cat.ogg"},
        "video": {"path": "v/77.mp4", "span": [2.0, 7.5]},
        "array": {"array": "rna.npy", "row": 17},
    }.items():
        assert Cell.from_json(kind, value).to_json() == value


def test_invalid_cells_raise_an_error_that_names_the_field() -> None:
    for kind, value, part in [
        ("image", "a.png", "must be an object"),
        ("image", {}, "must have exactly one of value, path, array, table, got no field"),
        ("image", {"path": "a", "table": "b"}, "must have exactly one of"),
        ("image", {"path": "/a.png"}, "'path' of a cell must be a path relative to the root"),
        ("image", {"path": ""}, "'path'"),
        ("image", {"path": "a\0b"}, "'path'"),
        ("image", {"path": 3}, "'path'"),
        ("image", {"path": "a", "row": 1}, "unexpected field 'row'"),
        ("image", {"path": "a", "root": -1}, "'root'"),
        ("image", {"path": "a", "root": True}, "'root'"),
        ("image", {"path": "a", "at": [1]}, "'at'"),
        ("image", {"path": "a", "at": [-1, 2]}, "'at'"),
        ("video", {"path": "a", "span": [2, 1]}, "'span'"),
        ("video", {"path": "a", "span": [0, float("inf")]}, "'span'"),
        ("video", {"path": "a", "span": [0, float("nan")]}, "'span'"),
        ("image", {"value": "a"}, "must refer to a file"),
        ("image", {"value": [1.0]}, "must refer to a file"),
        ("text", {"value": [1.0]}, "'value' of a cell must be a string"),
        ("array", {"value": "a"}, "'value' of a cell must be a list of numbers"),
        ("array", {"value": []}, "'value'"),
        ("array", {"value": [1, None]}, "'value'"),
        ("array", {"array": "a.npy"}, "lacks the field 'row'"),
        ("image", {"table": "a.parquet", "row": 1}, "lacks the field 'column'"),
    ]:
        with pytest.raises(DataError, match=part):
            Cell.from_json(kind, value)


def test_the_place_names_file_and_part() -> None:
    assert Cell(value="a cat").where == "value 'a cat'"
    assert Cell(path="s.tar", at=(5, 10), name="a.ogg").where == "s.tar, member 'a.ogg'"
    assert Cell(path="s.bin", at=(5, 10), span=(1, 2.5)).where == "s.bin, bytes 5 to 15, seconds 1 to 2.5"
    assert Cell(array="a.npz", key="x", row=3).where == "a.npz, array 'x', row 3"
    assert Cell(table="a.parquet", column="image", row=3).where == "a.parquet, column 'image', row 3"


def test_options_survive_json_and_are_checked() -> None:
    decoding = Decoding(rate=16_000, seconds=4.0, background=(0, 0, 0))
    assert decoding.to_json() == {"rate": 16_000, "seconds": 4.0, "background": [0, 0, 0]}
    assert Decoding.from_json(decoding.to_json()) == decoding
    assert Decoding.from_json({}) == Decoding()
    for invalid in [
        {"rate": 0}, {"rate": 1.5}, {"rate": 10**9}, {"seconds": 0}, {"seconds": float("nan")}, {"frames": 0},
        {"dim": 0}, {"background": 255}, {"background": (1, 2)}, {"background": (1, 2, 256)}, {"seed": -1},
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=next(iter(invalid))):
            Decoding(**invalid)
        with pytest.raises(DataError, match=next(iter(invalid))):
            Decoding.from_json(invalid)
    with pytest.raises(DataError, match="unknown"):
        Decoding.from_json({"unknown": 1})
    for name in ("bytes", "pixels", "samples", "characters", "seconds"):
        with pytest.raises(ConfigError, match=name):
            MediaLimits(**{name: 0})


def test_errors_keep_code_and_place_through_pickle() -> None:
    error = pickle.loads(pickle.dumps(MediaError("empty", "no content", "a.png")))
    assert (error.code, error.detail, error.where, str(error)) == (
        "empty", "no content", "a.png", "a.png: no content (empty)",
    )  # fmt: skip
    assert isinstance(error, DataError)


def test_codes_and_versions() -> None:
    # Stored lists of broken cells have these codes.
    assert CODES == (
        "missing-file", "empty", "too-large", "too-many-pixels", "too-long", "unreadable", "not-a-file", "link-outside",
        "link-loop", "undecodable", "truncated", "bad-utf8", "not-finite", "wrong-shape", "timeout", "changed",
        "zero-features",
    )  # fmt: skip
    assert set(VERSIONS) == set(KINDS)
