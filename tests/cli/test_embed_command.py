"""Test `unialign embed`: its output, its options and its errors."""

import json
from pathlib import Path

import pytest

from embed_cases import write_image
from unialign.cli import main
from unialign.data import EmbeddingStore
from unialign.items import Items

ENCODERS = ["--encode", "image=builtin:color", "--encode", "text=builtin:chars"]
QUICK = ["--workers", "0", "--threads", "1"]


@pytest.fixture
def media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for i in range(12):
        write_image(tmp_path / "media" / f"{i}.png", i)
        if i % 4:
            (tmp_path / "media" / f"{i}.txt").write_text(f"picture number {i}")
    return tmp_path / "media"


def run(*words: str) -> int:
    return main(["embed", *words])


def test_a_folder_becomes_a_store(media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (media / "7.png").write_text("no image")
    words = ["media", "--rule", "image=.png", "--rule", "text=.txt", *ENCODERS, *QUICK, "--out", "store"]
    assert run(*words) == 0
    output = capsys.readouterr().out
    assert "image: 12 cells by builtin:color" in output
    assert "text: 9 cells by builtin:chars" in output
    assert "image     12     11 (91.7 %)  1 undecodable" in output
    assert "Broken cells: store/assets/broken.jsonl" in output
    assert "All items are in the split `train`" in output
    assert output.rstrip().endswith("Store: store")
    store = EmbeddingStore.open("store")
    assert store.modalities == ("image", "text")
    assert store.present("text").sum() == 9
    assert run(*words) == 0
    assert "already complete" in capsys.readouterr().out


def test_options_reach_the_run(media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Items.open("media", rules={"image": ".png", "text": ".txt"}).save("table")
    options = ["--limit", "5", "--modalities", "text", "image", "--dtype", "float16", "--thumbnails", "none", "--hash"]
    assert run("table", *ENCODERS, *QUICK, *options, "--set", "limits.seconds=5", "--out", "a") == 0
    store = EmbeddingStore.open("a")
    assert (store.items, store.modalities) == (5, ("text", "image"))
    assert store.array("image").dtype == "float16"
    assert store.assets == ("items.jsonl", "files.jsonl", "marks.jsonl")
    assert store.provenance["plan"]["settings"]["limits"]["seconds"] == 5
    assert run("table", *ENCODERS, *QUICK, *options, "--set", "limits.seconds=5", "--out", "b", "--reuse", "a") == 0
    assert EmbeddingStore.open("b").fingerprint == store.fingerprint
    output = capsys.readouterr().out
    assert "reusing 2 of 2 parts from a finished store" in output
    assert "continuing" not in output
    # The default encoder of a modality that --encode leaves out.
    assert run("table", "--encode", "ima*=builtin:color", "--limit", "3", "--modalities", "image", *QUICK) == 0
    assert Path("runs/embed/store.json").exists()


def test_errors_are_one_paragraph(media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = ["media", "--rule", "image=.png"]
    (media / "bad").mkdir()
    cases = {
        "no source is given": [],
        "MODALITY=ENCODER": [*table, "--encode", "image"],
        "two encoders": [*table, "--encode", "image=builtin:color", "--encode", "image=builtin:conv"],
        "an encoder was given for 'sound'": [*table, "--encode", "sound=builtin:logmel"],
        "did you mean": [*table, "--encode", "image=builtin:colour"],
        "not a multiple of batch_size": [*table, "--encode", "image=builtin:color", "--part-cells", "100"],
        "there is no unfinished run": [*table, "--encode", "image=builtin:color", "--resume", "required"],
        "expected a number of at least 1": [*table, "--limit", "0"],
        "unknown entry 'pixel'": [*table, "--set", "limits.pixel=4"],
    }
    for message, words in cases.items():
        assert run(*words, "--out", "store", "--workers", "0") == 2
        error = capsys.readouterr().err
        assert message in error, words
        assert "Traceback" not in error
        assert error.count("\n") == 1
    assert not list(Path.cwd().glob(".store*"))


def test_broken_files_that_are_repaired(media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = (media / "3.png").read_bytes()
    (media / "3.png").write_bytes(good[:50])
    words = ["media", "--rule", "image=.png", "--encode", "image=builtin:color", *QUICK, "--out", "store"]
    assert run(*words, "--on-broken", "raise") == 2
    assert "'image' of item '3' (3.png)" in capsys.readouterr().err
    assert run(*words) == 0
    lines = [json.loads(line) for line in (Path("store") / "assets" / "broken.jsonl").read_text().splitlines()]
    assert [(line["items"], line["code"]) for line in lines] == [(["3"], "truncated")]
    (media / "3.png").write_bytes(good)
    assert run(*words, "--retry-broken") == 0
    assert EmbeddingStore.open("store").present("image").all()
