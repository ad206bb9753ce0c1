"""Test which scalar columns of a table form a matrix, and which strings are vectors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unialign.data import open_collection
from unialign.errors import DataError, ShapeError
from unialign.readers._columns import choose_columns
from unialign.readers._text_vectors import is_absent, parse_rows, recognize_vectors


def numbered(prefix: str, numbers: range | list[int]) -> list[str]:
    return [f"{prefix}{number}" for number in numbers]


def chosen(*columns: str, kind: str = "f") -> list[tuple[str, int]]:
    return [(series.name, len(series.columns)) for series in choose_columns(dict.fromkeys(columns, kind))[0]]


def test_numbered_series_are_matrices_named_by_their_prefix() -> None:
    for columns, expected in (
        (["id", *numbered("e", range(32))], [("", 32)]),  # The id is not a coordinate.
        (["000", "001", "002"], [("", 3)]),
        (numbered("img_", range(4)) + numbered("txt_", range(3)), [("img", 4), ("txt", 3)]),
        ([*numbered("item_emb_", range(4)), "score"], [("item_emb", 4)]),
        (numbered("e", range(3)) + numbered("v", range(3)), [("e", 3), ("v", 3)]),
        (["x[1]", "x[2]"], [("", 2)]),
        ([f"f{i}" for i in range(40) if i != 7], [("", 39)]),
    ):
        assert chosen(*columns) == expected, columns
    (series,), _ = choose_columns(dict.fromkeys(["e10", "e9", *numbered("e", range(9))], "f"))
    assert series.columns == tuple(numbered("e", range(11)))
    assert series.described == "11 columns, e0 to e10"
    assert chosen(*numbered("pixel", range(64)), kind="i") == [("pixel", 64)]


def test_scores_ids_years_and_single_numbers_are_never_a_matrix() -> None:
    for columns in (
        ["score"],
        ["similarity", "punsafe", "pwatermark"],  # metadata of clip-retrieval, not a vector of dim 3
        ["score0", "score1"],
        numbered("neighborDistance", range(20)),
        ["2019", "2020", "2021"],
        numbered("label_", range(10)),
        ["e0", "e2"],
        ["e1", "e01"],
        ["clip-vit-b32"],
    ):
        series, left = choose_columns(dict.fromkeys(columns, "f"))
        assert series == []
        assert left.keys() == set(columns)
        assert all(left.values())
    assert chosen("rating", "n0", "n1", kind="i") == []


def test_texts_that_are_vectors_are_recognized() -> None:
    for text, dim in {
        "[1, 2]": 2,
        "[0.1 0.2\n 0.3]": 3,
        "{1,2}": 2,
        "(1, 2)": 2,
        "1 2 3 4": 4,
        "[NaN, 1e-3]": 2,
    }.items():
        found = recognize_vectors([None, "", text])
        assert found is not None
        assert (found.dim, found.problem) == (dim, "")
        assert parse_rows([text, None, "[]"], dim, "x", 0).shape == (3, dim)
    for text in ("a cat", "[a] cat", '["a", "b"]', "2021-01-01", "1,2", "[5]", "[x, y]", "", "12", "[true, 1]"):
        assert recognize_vectors([text]) is None, text
    for text, words in {"[0.1 0.2 ... 0.9]": "replaces most numbers", "[1, 2, 3,, 'a']": "not a list"}.items():
        found = recognize_vectors([text])
        assert found is not None
        assert words in found.problem


def test_vectors_in_text_equal_the_array_and_errors_name_the_row() -> None:
    z = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    texts = [str(row.tolist()) for row in z]
    np.testing.assert_array_equal(parse_rows(texts, 3, "x", 0), z)
    assert is_absent(None)
    assert not is_absent(texts[0])
    with pytest.raises(ShapeError, match=r"x row 11 has 2 entries, but the first row has 3"):
        parse_rows([texts[0], "[1, 2]"], 3, "x", 10)
    with pytest.raises(ShapeError, match=r"x row 7 is 'broken', expected a list of numbers"):
        parse_rows(["broken"], 3, "x", 7)


def test_tables_of_the_public_keep_their_vectors_and_say_what_is_left(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    z = np.random.default_rng(0).standard_normal((30, 12)).astype(np.float32)
    score = np.linspace(0.0, 1.0, 30)

    def read(**columns: Any) -> tuple[dict[str, Any], str]:
        pq.write_table(pa.table(columns), tmp_path / "items.parquet")
        collection = open_collection(tmp_path / "items.parquet")
        found = {name: np.concatenate([c.copy() for c in m.rows.chunks()]) for name, m in collection.modalities.items()}
        return found, " ".join((*collection.ignored, *collection.notes))

    found, said = read(text=[json.dumps(row.tolist()) for row in z], score=score)  # The score is not a modality.
    np.testing.assert_array_equal(found["text"], z)
    assert list(found) == ["text"]
    assert "score" in said
    found, said = read(id=np.arange(30.0), **{f"e{i}": z[:, i] for i in range(12)})  # The id is not a coordinate.
    np.testing.assert_array_equal(found["items"], z)
    assert "12 columns, e0 to e11" in said
    assert "id (" in said
    with pytest.raises(DataError, match=r"found no embeddings.*similarity"):
        read(similarity=score, punsafe=score, pwatermark=score)
    with pytest.raises(DataError, match="replaces most numbers"):
        read(text=[str(np.arange(2000.0))] * 30)


def test_each_numbered_series_of_a_table_is_a_modality_and_blank_rows_are_absent(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spectrum, chemistry = rng.standard_normal((30, 10)), rng.standard_normal((30, 4))
    names = [*numbered("spectrum_", range(10)), *numbered("chemistry_", range(4))]
    lines = [",".join(names)]
    for row in range(30):
        own = [""] * 4 if row % 5 == 2 else [f"{value:.4f}" for value in chemistry[row]]
        lines.append(",".join([*(f"{value:.4f}" for value in spectrum[row]), *own]))
    (tmp_path / "soil.csv").write_text("\n".join(lines))
    collection = open_collection(tmp_path / "soil.csv")
    assert list(collection.modalities) == ["spectrum", "chemistry"]
    assert collection.modalities["spectrum"].present_N.all()
    found = collection.modalities["chemistry"]
    np.testing.assert_array_equal(found.present_N, np.arange(30) % 5 != 2)
    rows = np.concatenate([chunk.copy() for chunk in found.rows.chunks()])
    np.testing.assert_allclose(rows[found.present_N], chemistry[found.present_N], atol=1e-4)
    # A matrix named after its file.
    (tmp_path / "chem.csv").write_text("e0,e1,e2,label\n" + "0.5,1.5,2.5,a\n,,,b\n" * 20)
    found = open_collection(tmp_path / "chem.csv").modalities["chem"]
    np.testing.assert_array_equal(found.present_N, np.arange(40) % 2 == 0)
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {f"e{i}": [None if row == 3 else float(i + row) for row in range(30)] for i in range(4)}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    found = open_collection(tmp_path / "p.parquet").modalities["p"]
    assert found.present_N.tolist() == [row != 3 for row in range(30)]
