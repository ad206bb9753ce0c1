"""Items with equal texts and files are found and joined."""

from pathlib import Path

import numpy as np
import pytest

from unialign.items import Items, joined_groups, normalized_text, text_codes
from unialign.media import OpenFiles


def test_items_are_joined_through_other_items() -> None:
    codes = [np.array([0, 0, -1, -1, 1, 1]), np.array([-1, 5, 5, 3, 3, -1])]
    assert joined_groups(codes, 6).tolist() == [0, 0, 0, 3, 3, 3]
    assert joined_groups([], 3).tolist() == [0, 1, 2]
    chain = [np.repeat(np.arange(50), 2), np.concatenate([[-1], np.repeat(np.arange(49), 2), [-1]])]
    assert set(joined_groups(chain, 100).tolist()) == {0}


def test_texts_are_compared_without_case_width_and_final_punctuation() -> None:
    assert normalized_text(" A\tCat.") == normalized_text("a cat") == normalized_text("Ａ CAT!")
    assert normalized_text("a cat") != normalized_text("a cart")


def test_rows_of_a_table_open_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    parquet.write_table(pa.table({"caption": ["a", "b", "A", "c"]}), tmp_path / "texts.parquet")
    records = [
        {"id": str(row), "text": {"table": "texts.parquet", "row": row, "column": "caption"}} for row in range(4)
    ]
    items = Items.from_records(records, kinds={"text": "text"}, root=tmp_path, name="texts")
    closed: list[int] = []
    close = OpenFiles.close
    monkeypatch.setattr(OpenFiles, "close", lambda self: (closed.append(1), close(self))[1])
    assert text_codes(items, "text").tolist() == [0, 1, 0, 2]
    assert len(closed) == 1
