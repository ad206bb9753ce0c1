"""Test CSV files with unclosed quotes and with line ends of one CR."""

from pathlib import Path

import pytest

from unialign.data import Items, open_collection
from unialign.errors import DataError
from unialign.readers._quotes import open_quote


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('id,text\n1,"unclosed\n2,b\n3,c\n', 2),
        ('id,text\n1,"a\nb"\n2,"b\n3,c\n', 4),
        ('id,text\n1,a\n2,"b', 3),
        ('id,"text\n1,a\n2,b\n', 1),
        ('id,text\n1,"a ""quoted"" word"\n2,"b ""\n3,c\n', 3),
    ],
)
def test_a_quote_that_is_not_closed_names_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"m\.csv, line {line}: a quote opens and is not closed"):
        Items.open(path, rules={"text": "text"})


def test_a_quote_that_exceeds_the_size_of_a_cell_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(
        'id,text\n0,a\n1,"x\n' + "2,yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\n" * 300_000
    )
    with pytest.raises(DataError, match=r"m\.csv, line 3: a quote opens and is not closed"):
        Items.open(path)


def test_a_row_of_several_lines_with_too_many_cells_names_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text('id,text\n1,"x\n2,"y,z"\n')
    with pytest.raises(DataError, match="the row of lines 2 to 3 has 3 cells"):
        Items.open(path)


def test_quotes_inside_of_cells_do_not_open(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text('id,text\n1,5" pipe\n2,"a" b"\n3,""\n4,"line\nline"\n')
    items = Items.open(path)
    assert [items.cell(row, "text") and items.cell(row, "text").value for row in range(4)] == [
        '5" pipe',
        'a b"',
        None,
        "line\nline",
    ]
    assert open_quote(['a,"b""\n', 'c"\n'], ",") is None
    assert open_quote(["x\t'y\n"], "\t") is None


@pytest.mark.parametrize("ending", ["\r", "\r\r"])
def test_lines_that_end_with_cr_alone_are_an_error(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(ending.join(["id,image,text", "1,a.png,a", "2,b.png,b", ""]).encode())
    for opened in (Items.open, open_collection):
        with pytest.raises(DataError, match=r"m\.csv, line 1: a line ends with CR only; save the file with line ends"):
            opened(path)
    path.write_bytes(b"id,text\n1,a\r2,b\n")
    with pytest.raises(DataError, match=r"m\.csv, line 2: a line ends with CR only"):
        Items.open(path)
