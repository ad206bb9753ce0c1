"""Test `unialign train` with encoders that are trained, on one and two processes."""

import json
import socket
from pathlib import Path

import pytest
import torch
import yaml

from embed_cases import content
from media_train_cases import media_items
from processes import start_command
from unialign.cli import main
from unialign.data import EmbeddingStore
from unialign.encoders import create
from unialign.space import Space

ENCODERS = {"image": "builtin:conv?size=16", "text": "builtin:bag?dim=16", "sound": "builtin:logmel"}
WORDS = [
    *("train", "table", *(word for name, encoder in ENCODERS.items() for word in ("--encode", f"{name}={encoder}"))),
    *("--tune", "image=all", "--tune", "text=all", "--set", "tune.image.lr=3e-3", "--device", "cpu", "--workers", "0"),
    *("--epochs", "3", "--batch-size", "8", "--dim", "8", "--hidden", "8", "--objective", "infonce"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    media_items(tmp_path / "media", 40).save(tmp_path / "table")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_from_items_to_the_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--augment", "basic", "--out", "run"]) == 0
    printed = capsys.readouterr().out
    assert "training the encoders of image (all), text (all)" in printed
    assert "Broken: image of item 5: 5.png" in printed
    assert "Report: run/report.html\nSpace: run/space\n" in printed
    settings = yaml.safe_load(Path("run/config.yaml").read_text())
    assert settings["train"]["tune"]["image"]["lr"] == 3e-3
    assert settings["train"]["encoders"] == ENCODERS
    space = Space.from_pretrained("run/space")
    evaluated, store = EmbeddingStore.open("run/evaluated"), EmbeddingStore.open("run/store")
    assert evaluated.items == len(store.rows("test")) == 7
    results = json.loads(Path("run/results.json").read_text())
    assert results["data"]["items"] == 40
    assert results["data"]["test_items"] == 7
    (objective,) = results["objectives"].values()
    encoders = sum(p.numel() for name in ("image", "text") for p in create(ENCODERS[name]).module.parameters())  # type: ignore[union-attr]
    assert objective["parameters"] == sum(p.numel() for p in space.parameters()) + encoders
    for name in ("image", "text"):
        fingerprint = space.encoders[name]["fingerprint"]
        assert fingerprint == results["data"]["columns"][name]["fingerprint"]
        assert fingerprint != store.provenance["columns"][name]["fingerprint"]
    picture = Path("media") / f"{evaluated.item_name(0).removeprefix('item ')}.png"
    torch.testing.assert_close(
        space.encode({"image": [picture]})["image"], space.encode({"image": evaluated.array("image")[:1]})["image"]
    )

    before = content(Path("run/space"))
    assert main([*WORDS, "--augment", "basic", "--out", "run"]) == 0
    assert "already finished" in capsys.readouterr().out
    assert content(Path("run/space")) == before
    assert main(["train", "--config", "run/config.yaml", "--out", "again", "--device", "cpu", "--workers", "2"]) == 0
    again = Space.from_pretrained("again/space")
    assert again.encoders == space.encoders
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in space.state_dict().items())

    settings["data"]["fingerprint"] = "0" * 64
    Path("other.yaml").write_text(yaml.safe_dump(settings))
    assert main(["train", "--config", "other.yaml", "--out", "failed", "--device", "cpu", "--workers", "0"]) == 2
    assert f"has fingerprint {store.fingerprint}, expected 000" in capsys.readouterr().err

    # A setting of a modality is merged with that of the pattern; a table is named for the settings of a file.
    settings["data"]["fingerprint"] = store.fingerprint
    Path("other.yaml").write_text(yaml.safe_dump(settings))
    words = ["train", "table", "--config", "other.yaml", "--device", "cpu", "--workers", "0", "--epochs", "1"]
    assert main([*words, "--tune", "t*=all", "--set", "tune.text.lr=1e-4", "--out", "merged"]) == 0
    tuned = yaml.safe_load(Path("merged/config.yaml").read_text())["train"]["tune"]
    assert (tuned["text"]["mode"], tuned["text"]["lr"]) == ("all", 1e-4)


def test_errors_leave_no_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = (
        ([*WORDS, "--tune", "image=last"], "--tune gives 'image' two modes"),
        ([*WORDS, "--tune", "sound=some"], "mode 'some'"),
        ([*WORDS, "--tune", "image"], "--tune must have the form MODALITY=MODE"),
        ([*WORDS, "--tune", "sound=all"], "'sound' cannot be trained"),
        ([*WORDS, "--tune", "moon=all"], "tune has the modality 'moon'"),
        ([*WORDS, "--set", "tune.sound.lr=1"], "needs 'mode'"),
        ([*WORDS, "--set", "tune.image.rank=1"], "unknown tuning setting 'rank'"),
        (["train", "table", "--augment", "basic"], "all are frozen; add --tune"),
        (["train", "emoji", "--source", "a=emoji"], "so emoji belongs to none"),
        (["train", "emoji", "--set", "tune.image.mode=all"], "pass a folder or table of media"),
    )
    for words, message in cases:
        assert main([*words, "--out", "run"]) == 2, words
        error = capsys.readouterr().err
        assert message in error, (words, error)
        assert not Path("run").exists(), words


@pytest.mark.slow
def test_two_processes(here: Path) -> None:
    assert main([*WORDS, "--out", "alone"]) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    outputs = [here / f"{rank}.txt" for rank in range(2)]
    processes = [
        start_command(
            [*WORDS, "--out", "together"], shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, outputs[rank], here
        )
        for rank in range(2)
    ]
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0], [output.read_text() for output in outputs]
    assert content(Path("together/store")) == content(Path("alone/store"))
    one, other = (json.loads(Path(f"{name}/results.json").read_text()) for name in ("alone", "together"))
    spaces = [Space.from_pretrained(f"{name}/space") for name in ("alone", "together")]
    for name, tensor in spaces[0].state_dict().items():
        torch.testing.assert_close(spaces[1].state_dict()[name], tensor, atol=2e-4, rtol=1e-3)
    assert one["data"]["test_items"] == other["data"]["test_items"]
