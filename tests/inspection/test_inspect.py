"""`inspect` counts items, combinations, broken cells, duplicates and leaking groups."""

import errno
import json
import os
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unialign as ua
from unialign.cli import main
from unialign.errors import ConfigError, DataError
from unialign.media import RETRY_SECONDS, MediaLimits


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


# The first sound is decoded by PyAV, since a worker has more time for its first cell, which imports the decoder.
DECODER = """
class SoundFileError(Exception): ...

def SoundFile(stream):
    if stream.seek(0, 2) < 1000:
        raise SoundFileError("not supported")
    import os, time
    {}
"""


@pytest.mark.parametrize(("fault", "code"), [("os._exit(3)", "undecodable"), ("time.sleep(3600)", "timeout")])
def test_a_decoder_that_crashes_or_hangs_is_a_broken_cell(
    fault: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "soundfile.py").write_text(DECODER.format(fault))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    source = tmp_path / "sounds"
    source.mkdir()
    for number, frames in enumerate((400, 4000)):
        with wave.open(str(source / f"{number}.wav"), "wb") as file:
            file.setparams((1, 1, 8000, 0, "NONE", ""))
            file.writeframes(bytes(frames))
        (source / f"{number}.txt").write_text("a sound")
    found = ua.inspect(source, rules={"audio": ".wav", "text": ".txt"}, limits=MediaLimits(seconds=1))
    assert [(row["modality"], row["cell"], row["code"]) for row in found.broken] == [("audio", "1.wav", code)]
    assert found.results["modalities"]["audio"]["decoded"] == 1
    assert found.results["modalities"]["text"]["decoded"] == 2


def test_every_file_is_opened_without_decoding(folder: Path) -> None:
    os.mkfifo(folder / "7.png")
    (folder / "8.png").write_bytes(b"")
    (folder / "9.png").write_bytes(bytes(2000))
    found = ua.inspect(folder, rules=RULES, decode=0, limits=MediaLimits(bytes=1000))
    codes = {row["items"][0]: row["code"] for row in found.broken if row["modality"] == "image"}
    assert codes == {"7": "not-a-file", "8": "empty", "9": "too-large"}
    assert found.results["modalities"]["image"]["decoded"] == 0


def test_members_outside_their_file_are_broken(tmp_path: Path) -> None:
    (tmp_path / "shard").write_bytes(b"0123456789")
    records = [
        {"id": str(row), "image": {"path": "shard", "at": at}}
        for row, at in enumerate(([0, 4], [8, 4], [2, 0], [0, 9]))
    ]
    items = ua.data.Items.from_records(records, kinds={"image": "image"}, root=tmp_path, name="shard")
    found = ua.inspect(items, decode=0, limits=MediaLimits(bytes=8))
    assert {row["items"][0]: row["code"] for row in found.broken} == {"1": "truncated", "2": "empty", "3": "too-large"}


def test_a_file_system_that_fails_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    read = os.open

    def failing(path: object, *args: object, **options: object) -> int:
        if str(path).endswith("2.png"):
            raise OSError(errno.EIO, "Input/output error")
        return read(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("time.sleep", waits.append)
    items = ua.data.Items.open(folder, rules=RULES)
    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(DataError, match=r"2\.png cannot be read \(Input/output error\), even after several attempts"):
        ua.inspect(items)
    assert waits == list(RETRY_SECONDS)


def test_common_texts_do_not_join_items() -> None:
    texts = ["a dog"] * 30 + ["a cat"] * 30 + ["a ship", "A ship."] + [f"number {row}" for row in range(38)]
    records = [{"id": str(row), "text": text} for row, text in enumerate(texts)]
    found = ua.inspect(ua.data.Items.from_records(records, kinds={"text": "text"}, name="animals"))
    assert found.results["common_texts"] == {"text": {"texts": 2, "items": 60, "examples": ["0", "30"]}}
    assert found.results["groups"]["largest"] == 2
    assert found.results["groups"]["largest_by"] == "text"
    assert found.results["split"]["items"] == {"train": 70, "val": 10, "test": 20}
    assert "2 texts of 'text', each of more than 5 % of the items, not used for groups" in found.text()
