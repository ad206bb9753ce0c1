"""`inspect` counts items, combinations, broken cells, duplicates and leaking groups."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unialign as ua
from unialign.cli import main
from unialign.errors import ConfigError
from unialign.inspection import joined_groups, normalized_text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "media"
    source.mkdir()
    for number, text in enumerate(("A cat.", "a CAT", "a dog", "a ship")):
        pixels = np.full((4 + number, 5, 3), 40 * number, np.uint8)
        Image.fromarray(pixels).save(source / f"{number}.png")
        (source / f"{number}.txt").write_text(text)
    (source / "4.png").write_bytes((source / "2.png").read_bytes())
    (source / "5.txt").write_text("  ")
    (source / "6.png").write_bytes((source / "3.png").read_bytes()[:-30])
    return source


RULES = {"image": ".png", "text": ".txt"}


def test_counts_combinations_and_broken_cells(folder: Path) -> None:
    found = ua.inspect(folder, rules=RULES, decode=None)
    results = found.results
    assert results["data"]["items"] == 7
    assert results["modalities"]["image"]["present"] == 6
    assert results["modalities"]["image"]["broken"] == {"truncated": 1}
    assert results["modalities"]["image"]["quartiles"] == [20.0, 25.0, 30.0, 30.0, 35.0]
    assert results["modalities"]["image"]["bytes"] == sum(path.stat().st_size for path in folder.glob("*.png"))
    assert results["modalities"]["text"]["blank"] == 1
    assert results["combinations"] == [
        {"modalities": ["image", "text"], "items": 4},
        {"modalities": ["image"], "items": 2},
        {"modalities": ["text"], "items": 1},
    ]
    (broken,) = found.broken
    assert (broken["modality"], broken["cell"], broken["items"], broken["code"]) == (
        "image",
        "6.png",
        ["6"],
        "truncated",
    )


def test_equal_texts_and_equal_files_share_a_group(folder: Path) -> None:
    plain = ua.inspect(folder, rules=RULES)
    hashed = ua.inspect(folder, rules=RULES, hash=True)
    assert plain.results["duplicates"]["text"] == {"distinct": 3, "items": 2, "largest": 2}
    assert plain.items.groups[0] == plain.items.groups[1]
    assert plain.items.groups[2] != plain.items.groups[4]
    assert hashed.items.groups[2] == hashed.items.groups[4]
    assert hashed.results["groups"]["count"] == 5
    for found in (plain, hashed):
        pairs = set(zip(found.items.groups.tolist(), found.items.split.tolist(), strict=True))
        assert len(pairs) == found.results["groups"]["count"]


def test_groups_that_cross_a_given_split_are_found(folder: Path) -> None:
    items = ua.data.Items.open(folder, rules=RULES)
    leaking = items.with_split(["train", "test", "train", "val", "train", "train", "test"])
    found = ua.inspect(leaking)
    assert found.leaking_groups == 1
    assert found.results["groups"]["examples"] == ["0"]
    assert found.items.split.tolist() == leaking.split.tolist()
    assert "1 group with items in more than one part" in found.text()
    assert ua.inspect(items).leaking_groups == 0


def test_the_sample_is_fixed_by_the_seed(folder: Path) -> None:
    sizes = [ua.inspect(folder, rules=RULES, decode=2, seed=seed).results["modalities"] for seed in (0, 0, 1, 2)]
    assert sizes[0]["image"]["quartiles"] == sizes[1]["image"]["quartiles"]
    assert len({tuple(found["image"]["quartiles"] or ()) for found in sizes}) > 1
    assert sizes[0]["text"]["decoded"] == 2


def test_items_are_joined_through_other_items() -> None:
    codes = [np.array([0, 0, -1, -1, 1, 1]), np.array([-1, 5, 5, 3, 3, -1])]
    assert joined_groups(codes, 6).tolist() == [0, 0, 0, 3, 3, 3]
    assert joined_groups([], 3).tolist() == [0, 1, 2]
    chain = [np.repeat(np.arange(50), 2), np.concatenate([[-1], np.repeat(np.arange(49), 2), [-1]])]
    assert set(joined_groups(chain, 100).tolist()) == {0}


def test_texts_are_compared_without_case_width_and_final_punctuation() -> None:
    assert normalized_text(" A\tCat.") == normalized_text("a cat") == normalized_text("Ａ CAT!")
    assert normalized_text("a cat") != normalized_text("a cart")


def test_options_of_a_source_need_a_source(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"'rules' is an option of Items\.open"):
        ua.inspect(ua.data.Items.open(folder, rules=RULES), rules=RULES)


def test_the_command_writes_a_table_a_report_and_the_broken_cells(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(folder / "7.png")
    out, table = tmp_path / "inspect", tmp_path / "table"
    words = ["inspect", str(folder), "--rule", "image=.png", "--rule", "text=.txt", "--decode", "all", "--hash"]
    assert main([*words, "--out", str(out), "--save", str(table), "--fail-on", "broken"]) == 1
    printed = capsys.readouterr().out
    assert "1 not-a-file" in printed
    codes = [json.loads(line)["code"] for line in (out / "broken.jsonl").read_text().splitlines()]
    assert sorted(codes) == ["not-a-file", "truncated"]
    page = (out / "report.html").read_text()
    assert "Combinations of modalities" in page
    assert "truncated" in page
    items = ua.data.Items.load(table)
    assert items.has_split
    assert items.groups[0] == items.groups[1]
    assert main([*words, "--out", str(out)]) == 0
