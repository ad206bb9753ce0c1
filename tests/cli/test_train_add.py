"""Test `unialign train --init-from SPACE --train NAME`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from unialign.cli import main
from unialign.data import EmbeddingStore
from unialign.space import Space

BASE = ["train", "old", "--objective", "infonce", "--epochs", "2", "--batch-size", "16"]
HEADS = ["--dim", "8", "--hidden", "12", "--input-norm", "unit"]
ADD = ["train", "new", "--objective", "infonce", "--epochs", "2", "--batch-size", "16", "--init-from", "base/space"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write stores of image and text, and of text and speech, and train a space on the first."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(60, 4))
    dims = {"image": 7, "text": 6, "speech": 5}
    columns = {
        name: latent @ rng.normal(size=(4, dim)) + 0.1 * rng.normal(size=(60, dim)) for name, dim in dims.items()
    }
    split = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    monkeypatch.chdir(tmp_path)
    for store, names in (("old", ("image", "text")), ("new", ("text", "speech"))):
        EmbeddingStore.write(store, {name: columns[name].astype("float32") for name in names}, split=split)
    assert main([*BASE, *HEADS, "--out", "base"]) == 0
    return tmp_path


def equal(first: str, second: str, names: tuple[str, ...]) -> list[bool]:
    """Return whether the embeddings of each modality are bitwise equal in two spaces."""
    x = {
        name: torch.randn(9, dim, generator=torch.Generator().manual_seed(0))
        for name, dim in (("image", 7), ("text", 6))
    }
    a, b = (Space.from_pretrained(f"{run}/space").encode(x) for run in (first, second))
    return [torch.equal(a[name], b[name]) for name in names]


def test_a_modality_is_added_with_the_heads_of_the_space(here: Path) -> None:
    assert main([*ADD, "--train", "speech", "--out", "added"]) == 0
    space = Space.from_pretrained("added/space")
    assert space.modalities == ("image", "text", "speech")
    assert (space.dim, space.hidden, space.input_norm) == (8, 12, "unit")
    assert equal("base", "added", ("image", "text")) == [True, True]
    config = yaml.safe_load(Path("added/config.yaml").read_text())
    assert config["init_from"]["path"] == str(here / "base" / "space")
    assert config["init_from"]["train"] == ["speech"]
    assert (Path("added") / "report.html").is_file()


def test_a_run_is_repeated_from_its_file_and_resumed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ADD, "--train", "speech", "--out", "added"]) == 0
    assert main(["train", "--config", "added/config.yaml", "--out", "again"]) == 0
    content = [Path(f"{run}/space/model.safetensors").read_bytes() for run in ("added", "again")]
    assert content[0] == content[1]
    capsys.readouterr()
    assert main([*ADD, "--train", "speech", "--out", "added", "--resume", "required"]) == 0
    assert "already finished" in capsys.readouterr().out
    assert main([*ADD, "--train", "text", "--modalities", "text", "speech", "--out", "added"]) == 2
    assert main([*BASE, *HEADS, "--seed", "1", "--out", "other"]) == 0
    for path in Path("other/space").iterdir():
        (Path("base/space") / path.name).write_bytes(path.read_bytes())
    assert main(["train", "--config", "added/config.yaml", "--out", "third"]) == 2
    assert "has different weights than when the run was made" in capsys.readouterr().err


def test_ridge_gives_a_linear_head_in_a_space_of_other_heads(here: Path) -> None:
    assert main([*ADD, "--train", "speech", "--init", "ridge", "--epochs", "0", "--out", "ridge"]) == 0
    assert Space.from_pretrained("ridge/space").linear == ("speech",)
    assert equal("base", "ridge", ("image", "text")) == [True, True]


def test_training_continues_from_a_space(here: Path) -> None:
    assert main([*BASE, "--init-from", "base/space", "--out", "more"]) == 0
    assert equal("base", "more", ("image", "text")) == [False, False]
    assert main([*BASE, "--init-from", "base/space", "--train", "text", "--out", "text"]) == 0
    assert equal("base", "text", ("image", "text")) == [True, False]


def test_errors(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases: list[tuple[str, list[str]]] = [
        ("--init-from SPACE is required", [*BASE, "--train", "text"]),
        ("train names 'sound', but the data have text, speech", [*ADD, "--train", "sound"]),
        ("'speech' is in the data, but not in init_from", [*ADD, "--train", "text"]),
        ("init_from has dim=8, but this run has dim=4", [*ADD, "--train", "speech", "--dim", "4"]),
        ("nowhere", [*ADD[:-1], "nowhere/space", "--train", "speech"]),
    ]
    for message, words in cases:
        assert main([*words, "--out", "failed"]) == 2, words
        assert message in capsys.readouterr().err
        assert not Path("failed/space").exists()


def test_media_of_old_modalities_are_encoded_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text encoder has an option that is not the default, which the second command takes from the space."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Path("first").mkdir()
    Path("second").mkdir()
    for item in range(40):
        words = f"{'red' if item % 2 else 'blue'} number {item}"
        shade = (200, 30, 30) if item % 2 else (30, 30, 200)
        pixels = np.clip(np.array(shade) + rng.normal(0, 20, (16, 16, 3)), 0, 255).astype(np.uint8)
        for folder in ("first", "second"):
            Image.fromarray(pixels).save(f"{folder}/{item:02}.png")
            Path(f"{folder}/{item:02}.txt").write_text(words)
        np.save(f"second/{item:02}.npy", rng.normal(size=5).astype("float32") + item % 2)
    common: list[Any] = ["--epochs", "1", "--batch-size", "16", "--workers", "0", "--objective", "infonce"]
    files = ["--rule", "image=.png", "--rule", "text=.txt"]
    encoders = ["--encode", "image=builtin:color", "--encode", "text=builtin:chars?dim=64"]
    assert main(["train", "first", *files, *encoders, *common, "--dim", "4", "--out", "base"]) == 0
    files = ["--rule", "text=.txt", "--rule", "sensor=.npy"]
    add = [*files, *common, "--init-from", "base/space", "--train", "sensor"]
    assert main(["train", "second", *add, "--out", "added"]) == 0
    before, after = Space.from_pretrained("base/space"), Space.from_pretrained("added/space")
    assert after.modalities == ("image", "text", "sensor")
    assert after.encoders["text"]["fingerprint"] == before.encoders["text"]["fingerprint"]
    raw = {"text": ["red number 1", None], "image": ["first/00.png", "first/01.png"]}
    z = [space.encode(raw) for space in (before, after)]
    assert all(torch.equal(z[0][name], z[1][name]) for name in raw)
