"""Test `unialign train` on folders and tables of media."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from embed_cases import content
from processes import start_command
from unialign.cli import main
from unialign.cli._media import chosen_encoder
from unialign.data import EmbeddingStore
from unialign.items import Items
from unialign.space import Space

COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "grey": (120, 120, 120)}
THINGS = ("cat", "dog", "ship", "tree", "house", "moon", "car")
WORDS = ["train", "stamps", "--rule", "image=.png", "--rule", "text=.txt", "--workers", "0"]
SETTINGS = ["--epochs", "2", "--batch-size", "16", "--dim", "8", "--hidden", "16", "--out", "run"]
ENCODERS = ["--encode", "image=builtin:color", "--encode", "text=builtin:chars"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create the folder `stamps` with pictures and captions; the last item has no caption."""
    rng = np.random.default_rng(0)
    (tmp_path / "stamps").mkdir()
    for place, (name, color) in enumerate(list(COLORS.items()) * len(THINGS)):
        pixels = np.clip(np.array(color) + rng.normal(0, 12, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"stamps/{place:02}.png")
        (tmp_path / f"stamps/{place:02}.txt").write_text(f"a {name} {THINGS[place // 4]}")
    (tmp_path / "stamps/27.txt").unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_encoder_of_a_pattern() -> None:
    encoders = {"speech_*": "builtin:logmel", "speech_fr": "builtin:conv"}
    found = [chosen_encoder(encoders, name) for name in ("speech_en", "speech_fr", "image")]
    assert found == ["builtin:logmel", "builtin:conv", None]


def test_a_folder_becomes_a_space(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, *ENCODERS, *SETTINGS]) == 0
    printed = capsys.readouterr().out
    assert "embedding image with builtin:color, text with builtin:chars" in printed
    assert "Report: run/report.html\nSpace: run/space\n" in printed
    store = EmbeddingStore.open("run/store")
    assert store.items == 28
    assert store.present("text").sum() == 27
    assert {name: len(store.rows(name)) for name in ("train", "val", "test")} == {"train": 20, "val": 3, "test": 5}

    space = Space.from_pretrained("run/space")
    row = int(store.rows("test")[0])
    name = store.item_name(row)
    found = space.encode({"image": [f"stamps/{name}.png"], "text": [(here / f"stamps/{name}.txt").read_text()]})
    for modality, z in found.items():
        stored = space.encode({modality: store.array(modality)[row : row + 1]})[modality]
        assert float((z - stored).abs().max()) < 1e-6

    results = json.loads(Path("run/results.json").read_text())
    card = Path("run/space/README.md").read_text()
    evaluation = space.metadata["evaluation"]
    (summary,) = results["summary"].values()
    assert evaluation["metrics"][0] == {
        "name": "R@1",
        "metric": "recall@1",
        "value": summary["recall@1"]["mean"],
        "low": summary["recall@1"]["low"],
        "high": summary["recall@1"]["high"],
    }
    assert "On 5 items of the split `test`:" in card
    assert "| image, text | 19 |" in card

    before = content(Path("run/space"))
    assert main([*WORDS, *ENCODERS, *SETTINGS]) == 0
    assert "already finished" in capsys.readouterr().out
    assert content(Path("run/space")) == before
    assert Path(yaml.safe_load(Path("run/config.yaml").read_text())["data"]["path"]).samefile("run/store")
    assert main(["train", "--config", "run/config.yaml", "--out", "again"]) == 0
    assert Space.from_pretrained("again/space").encoders == space.encoders


def test_an_item_table_and_default_encoders(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A saved table needs no rules, and its split is used."""
    items = Items.open("stamps", rules={"image": ".png", "text": ".txt"})
    items.with_split(["train" if row % 2 else "test" for row in range(28)]).save("table")
    assert main(["train", "table", "--workers", "0", "--encode", "image=builtin:color", *SETTINGS]) == 0
    assert len(EmbeddingStore.open("run/store").rows("test")) == 14
    assert "image with builtin:color, text with " in capsys.readouterr().out
    assert Space.from_pretrained("run/space").encoders["text"]["media"] == "text"


def test_settings_that_cannot_work_are_found_before_encoding(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = Items.open("stamps", rules={"image": ".png", "text": ".txt"})
    items.with_split(["train"] * 27 + ["test"]).save("narrow")
    np.savez("arrays.npz", a=np.ones((4, 2)), b=np.ones((4, 2)))
    cases = (
        (WORDS[:4], "has only the modality 'image', but training needs at least two"),
        ([*WORDS, "--anchor", "sound"], "sound"),
        ([*WORDS, "--modalities", "image", "sound"], "sound"),
        ([*WORDS, "--encode", "image"], "--encode must have the form MODALITY=ENCODER"),
        ([*WORDS, "--encode", "image=builtin:color", "--encode", "image=x:y"], "gives 'image' two encoders"),
        ([*WORDS, "--encode", "image=builtin:chars"], "builtin:chars"),
        ([*WORDS, "--encode", "picture=builtin:color"], "picture"),
        ([*WORDS, "--id", "name"], "--id joins files of embeddings; for media use --id-column"),
        (["train", "narrow"], "the split 'test' of 'stamps' has 1 item, but at least 2 are needed"),
        (["train", "stamps"], "unialign train stamps --rule image=.png --rule text=.txt"),
        (["train", "nowhere", "--rule", "image=.png"], "nowhere"),
        (["train", "--rule", "image=.png"], "no data is given"),
    )
    for words, message in cases:
        assert main([*words, *SETTINGS]) == 2, words
        assert message in capsys.readouterr().err, words
        assert not Path("run/store").exists(), words
    assert main([*WORDS, *ENCODERS, *SETTINGS]) == 0
    capsys.readouterr()
    assert main(["train", "run/store", "--encode", "image=builtin:color", "--out", "other"]) == 2
    assert "is a store, which already contains features" in capsys.readouterr().err
    assert main(["train", "run/store", "--epochs", "1", "--dim", "4", "--out", "other"]) == 0
    capsys.readouterr()
    assert main([*WORDS, "--out", "other"]) == 2
    assert "other holds a run on other data" in capsys.readouterr().err


def test_broken_media(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in range(12):
        (here / f"stamps/{place:02}.png").write_bytes(b"broken")
    assert main([*WORDS, *ENCODERS, *SETTINGS]) == 2
    error = capsys.readouterr().err
    assert "--max-broken" in error
    assert main([*WORDS, *ENCODERS, *SETTINGS, "--max-broken", "0.6"]) == 0
    assert EmbeddingStore.open("run/store").present("image").sum() == 16
    printed = capsys.readouterr().out
    assert "Broken: image of 00: 00.png" in printed
    assert "All 12 broken cells: run/store/assets/broken.jsonl" in printed
    # A trained space belongs to the store that it was trained on.
    assert main([*WORDS, *ENCODERS, *SETTINGS, "--max-broken", "0.6", "--retry-broken"]) == 2
    assert "--retry-broken would replace; choose another --out" in capsys.readouterr().err


def test_an_edited_file_is_noticed_after_the_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, *ENCODERS, *SETTINGS]) == 0
    Image.new("RGB", (16, 16), "yellow").save(here / "stamps/03.png")
    capsys.readouterr()
    assert main([*WORDS, *ENCODERS, *SETTINGS]) == 2
    error = capsys.readouterr().err
    assert "1 file differs from those that were encoded: 03.png" in error
    assert "(--out)" in error
    assert "--overwrite" not in error
    assert main([*WORDS, *ENCODERS, *SETTINGS, "--seed", "1", "--out", "other"]) == 0


@pytest.mark.crash
def test_a_killed_command_continues(here: Path) -> None:
    """The command is killed in its stages; the same command then gives the files of an uninterrupted run."""
    words = [*WORDS, *ENCODERS, *SETTINGS]
    assert main(words) == 0
    expected = content(Path("run/space")), content(Path("run/store"))
    words[-1] = "killed"
    stages = ("killed/.store.embed/plan.json", "killed/store/store.json", "killed/log.jsonl", "killed/results.json")
    for stage in stages:
        process = start_command(words, {}, here / "output.txt", here)
        limit = time.monotonic() + 60
        while process.is_alive() and not Path(stage).exists() and time.monotonic() < limit:
            time.sleep(0.005)
        process.kill()
        process.join(60)
    process = start_command(words, {}, here / "output.txt", here)
    process.join(200)
    assert process.exitcode == 0, (here / "output.txt").read_text()
    assert process.exitcode != -signal.SIGKILL
    assert (content(Path("killed/space")), content(Path("killed/store"))) == expected
    assert not Path("killed/.store.embed").exists()
