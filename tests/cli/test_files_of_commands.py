"""Test the commands with glob patterns, folders of files, and `--id`."""

import json
from pathlib import Path

import numpy as np
import pytest

from unialign.cli import main

QUICK = ["--epochs", "1", "--dim", "4", "--head", "linear"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    image = rng.normal(size=(60, 6)).astype(np.float32)
    Path("parts").mkdir()
    for i in range(3):
        part = slice(20 * i, 20 * i + 20)
        np.savez(f"parts/image-{i:05d}-of-00003.npz", image=image[part], serial=np.arange(60)[part])
    with Path("text.jsonl").open("w") as file:
        for i in rng.permutation(60)[:50]:
            file.write(json.dumps({"serial": str(i), "text": (image[i] + 0.1).tolist()}) + "\n")
    return tmp_path


def test_every_command_joins_files_by_the_given_ids(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["parts/image*.npz", "text.jsonl", "--id", "serial"]
    with pytest.warns(UserWarning, match=r"text\.jsonl has 50 of the 60 items"):
        assert main(["train", *files, *QUICK, "--out", "run"]) == 0
    with pytest.warns(UserWarning, match=r"3 part files"):
        assert main(["evaluate", "run/space", *files, "--resamples", "100", "--out", "evaluation"]) == 0
    assert main(["diagnose", *files, "--resamples", "100", "--out", "diagnosis"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "text.jsonl has 50 of the 60 items" in printed
    assert "3 part files are concatenated" in printed
    numbers = json.loads((place / "diagnosis/results.json").read_text())["numbers"]
    assert {name: stats["usable"] for name, stats in numbers["modalities"].items()} == {"image": 60, "text": 50}
    assert "id: serial" in (place / "diagnosis/config.yaml").read_text()
    assert main(["diagnose", *files[:2], "--id", "serials", "--out", "wrong"]) == 2
    assert "did you mean 'serial'?" in capsys.readouterr().err
    assert main(["train", "partz", *QUICK]) == 2
    assert "did you mean 'parts'?" in capsys.readouterr().err
    assert main(["train", "nothing*.npz", *QUICK]) == 2
    assert "no file matches 'nothing*.npz'" in capsys.readouterr().err
