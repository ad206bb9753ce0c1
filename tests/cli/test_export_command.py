"""Test `unialign export`."""

import json
from pathlib import Path

import pytest
import torch

import unialign as ua
from unialign.cli import main


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ua.Space:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    space = ua.Space({"image": 5, "text": 4}, dim=3, hidden=4)
    space.save_pretrained("space")
    return space


def test_files_and_their_description(space: ua.Space, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "space", "--format", "torch", "--modalities", "text", "--out", "out"]) == 0
    assert capsys.readouterr().out == (
        "text: out/0-text.pt2, features (batch, 4) -> (batch, 3)\nDescription: out/io.json\n"
    )
    assert list(json.loads(Path("out/io.json").read_text())["modalities"]) == ["text"]
    x = torch.randn(9, 4)
    found = torch.export.load("out/0-text.pt2").module()(x)
    torch.testing.assert_close(found, space.encode({"text": x})["text"], atol=1e-6, rtol=0)


def test_errors(space: ua.Space, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["space", "--modalities", "sound"], "unknown modality 'sound'"),
        (["space", "--encoders"], "the space has no encoders"),
        (["space", "--format", "tensorrt"], "tensorrt"),
        (["nowhere"], "nowhere"),
        (
            ["space", "--format", "torch", "--out", "space"],
            "space holds README.md, which is not from an earlier export",
        ),
    ):
        assert main(["export", *words]) == 2
        assert message in capsys.readouterr().err
    assert not Path("runs").exists()
