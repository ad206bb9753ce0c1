"""Test the display of progress: cells, speed, time left, and where the time goes."""

from pathlib import Path
from typing import Any

import pytest

import unialign as ua
from embed_cases import small_encoders, small_items, text_encoder, text_items
from unialign._plain_text import duration
from unialign.config import EmbedConfig
from unialign.embedding import _progress, embed_with
from unialign.embedding._clock import Clock
from unialign.embedding._progress import Progress


@pytest.fixture
def plan(tmp_path: Path) -> Any:
    config = EmbedConfig(batch_size=4, part_cells=4, threads=1, workers=0)
    return embed_with(config, small_items(tmp_path), small_encoders(), tmp_path / "store", progress="none").plan


def test_a_line_has_cells_speed_time_left_and_stages(
    plan: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    clock = Clock()
    display = Progress("lines", plan, clock, {"image": 4, "text": 0}, waiting="waiting for decoding")
    now[0] += 2
    display.advance("image", 4)
    assert capsys.readouterr().err == ""  # a line every 10 seconds
    now[0] += 18
    clock.seconds.update(wait=12.4, encode=7.4, write=0.2)
    display.advance("image", 4)
    cells, stages = capsys.readouterr().err.rstrip().split("; ")
    assert cells == "image (1 of 2): 12 of 16 cells, 0.4 per second, 10 s left"
    assert stages == "waiting for decoding 62 %, encoding 37 %, writing 1 %"
    display.advance("image", 4)
    now[0] += 40
    clock.seconds["encode"] += 40
    display.advance("text", 8)
    assert capsys.readouterr().err.startswith("text (2 of 2): 8 of 11 cells, 0.2 per second, 15 s left; waiting for")


def test_a_bar_and_silence(plan: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for mode in ("bar", "none"):
        display = Progress(mode, plan, Clock(), {"image": 0, "text": 0}, waiting="decoding")
        for column in plan.columns.values():
            display.advance(column.name, 8)
            display.advance(column.name, column.cells - 8)
        display.close()
        found = capsys.readouterr().err
        assert [label in found for label in ("image (1 of 2)", "text (2 of 2)")] == [mode == "bar"] * 2


def test_batches_of_a_part_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_progress, "_SECONDS_BETWEEN_LINES", -1)
    options: Any = {"batch_size": 4, "threads": 1, "workers": 0, "progress": "lines"}
    ua.embed(small_items(tmp_path), small_encoders(), tmp_path / "store", **options)
    lines = [line.partition(" cells")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == [f"image (1 of 2): {cells} of 16" for cells in (4, 8, 12)]


def test_durations() -> None:
    assert [duration(seconds) for seconds in (19.4, 240, 9000)] == ["19 s", "4 min", "2.5 h"]


def test_seconds_of_the_stages_are_returned(tmp_path: Path) -> None:
    config = EmbedConfig(threads=1, workers=0)
    outcome = embed_with(config, text_items(["a"]), {"text": text_encoder()}, tmp_path / "store", progress="none")
    assert set(outcome.seconds) == {"wait", "encode", "write"}
    assert all(seconds > 0 for seconds in outcome.seconds.values())
    again = embed_with(config, text_items(["a"]), {"text": text_encoder()}, tmp_path / "store", progress="none")
    assert (again.computed, again.resumed, dict(again.seconds)) == (0, 0, {})
    assert isinstance(again.store, ua.data.EmbeddingStore)
