"""Test `unialign decoder`: training, sampling, `generate` with the trained decoder, and invalid arguments."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from unialign._datasets import datasets_folder
from unialign.cli import main
from unialign.data import EmbeddingStore, load_dataset
from unialign.errors import ConfigError
from unialign.experiments import check_run_dir

SETTINGS = [
    "--steps",
    "6",
    "--directions",
    "8",
    "--latents",
    "8",
    "--width",
    "16",
    "--depth",
    "1",
    "--batch-size",
    "4",
    "--size",
    "8",
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("PIL")
    folder = tmp_path_factory.mktemp("small") / "store"
    emoji = load_dataset("emoji")
    rows = np.arange(len(emoji.item_names))
    EmbeddingStore.write(
        folder,
        {"image": emoji.array("image"), "text": emoji.array("text")},
        split=np.where(rows % 40 == 0, np.where(rows % 80 == 0, "train", "test"), "val"),
        names=emoji.item_names,
        provenance=emoji.provenance | {"columns": {"image": emoji.provenance["columns"]["image"]}},
        assets={"thumbnails.zip": emoji.asset("thumbnails.zip")},
    )
    return folder


@pytest.fixture(scope="module")
def trained(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run; a test must copy the folder before changing files."""
    out = tmp_path_factory.mktemp("decoder") / "run"
    assert main(["decoder", "train", str(small), *SETTINGS, "--out", str(out)]) == 0
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_train_sample_and_generate(
    small: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["decoder", "train", str(small), *SETTINGS, "--out", str(trained)]) == 0
    printed = capsys.readouterr().out
    assert "decoder of 8 x 8 pixels" in printed
    assert "samples-00000006.png" in printed
    image = tmp_path / "samples.png"
    assert main(["decoder", "sample", str(trained / "decoder"), str(small), "--count", "5", "--out", str(image)]) == 0
    assert image.read_bytes().startswith(b"\x89PNG")

    training = ["--objective", "unialign", "--anchor", "image", "--epochs", "1", "--dim", "8", "--batch-size", "8"]
    space = ["train", str(small), *training, "--set", "frozen.image=whiten", "--out", str(tmp_path / "space")]
    assert main(space) == 0
    models = ["--space", str(tmp_path / "space" / "space"), "--decoder", str(trained / "decoder")]
    call = ["generate", "--data", str(small), *models, "--item", "#40", "--source", "text", "--samples", "1"]
    assert main([*call, "--out", str(tmp_path / "images")]) == 0
    assert json.loads((tmp_path / "images" / "results.json").read_text())["protocol"]["size"] == 8


def test_the_written_configuration_repeats_the_training(trained: Path, tmp_path: Path) -> None:
    assert main(["decoder", "train", "--config", str(trained / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
    weights = (path / "decoder" / "model.safetensors" for path in (trained, tmp_path / "again"))
    assert next(weights).read_bytes() == next(weights).read_bytes()


def test_other_results_are_not_overwritten_and_other_embeddings_raise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "images" / "config.yaml"
    config.parent.mkdir()
    config.write_text("generation: {}\n")
    assert main(["decoder", "train", "emoji", "--steps", "1", "--out", str(tmp_path / "images")]) == 2
    assert "holds another kind of result (generation, not decoder)" in capsys.readouterr().err
    assert config.read_text() == "generation: {}\n"
    (tmp_path / "notes.txt").write_text("a file of the user")
    assert main(["decoder", "train", "emoji", *SETTINGS, "--out", str(tmp_path)]) == 2
    assert "and no decoder" in capsys.readouterr().err
    out = str(tmp_path / "samples.png")
    assert main(["decoder", "sample", "emoji", "emoji", "--image", "drawing", "--out", out]) == 2
    assert "'drawing' of 'emoji'" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["decoder", "sample", "emoji", "emoji", "--out", str(tmp_path / "file" / "samples.png")]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert main(["decoder", "sample", "emoji", "emoji", "--out", "/"]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_invalid_requests_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["train"], "pass the data"),
        (["train", "emoji", "--color", "3"], "unknown option --color"),
        (["train", "emoji", "--size", "3"], "size"),
        (["train", "emoji", "--image", "picture"], "'picture'"),
        (["train", "digits", "--image", "pix"], "has no asset thumbnails.zip"),
        (["sample", "emoji"], "pass the data"),
        (["sample", "nowhere", "emoji"], "not a folder with a saved decoder"),
        (["sample", "emoji", "emoji", "--image", "text", "--count", "0"], "count"),
    ):
        assert main(["decoder", *arguments, "--out", str(tmp_path / "out")]) == 2, arguments
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    for out in ("x" * 400, "a\0b"):
        assert main(["decoder", "train", "emoji", *SETTINGS, "--out", out]) == 2
        assert "Traceback" not in capsys.readouterr().err


def test_the_shipped_decoder_is_below_15_megabytes() -> None:
    assert sum(path.stat().st_size for path in datasets_folder("models").rglob("*") if path.is_file()) < 15_000_000


def test_a_damaged_decoder_of_a_finished_run_is_restored(small: Path, run: Path) -> None:
    weights = run / "decoder" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-9])
    (run / "log.jsonl").unlink()  # A finished run can be loaded without its log.
    assert main(["decoder", "train", str(small), *SETTINGS, "--out", str(run)]) == 0
    assert weights.read_bytes() == whole
    for line in ("", '{"kind": "step", "step": 1}', '{"kind": "step", "step": 1, "loss": "x"}', "[" * 100_000):
        (run / "log.jsonl").write_text(line + "\n")
        assert main(["decoder", "train", str(small), *SETTINGS, "--out", str(run)]) == 0, line[:50]


def test_leftovers_of_a_killed_training_do_not_block_its_folder(tmp_path: Path) -> None:
    (tmp_path / ".config.yaml.0123456789ab.partial").write_text("half")
    (tmp_path / "checkpoints").mkdir()
    check_run_dir(tmp_path, "decoder")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        check_run_dir(tmp_path, "decoder")


def test_a_decoder_of_other_settings_is_not_overwritten(
    small: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (run / "decoder" / "model.safetensors").read_bytes()
    call = ["decoder", "train", str(small), *SETTINGS, "--seed", "7", "--out", str(run)]
    assert main(call) == 2
    assert "made with seed=0; this run has seed=7" in capsys.readouterr().err
    shutil.rmtree(run / "checkpoints")
    (run / "log.jsonl").unlink()
    assert main(call) == 2
    assert "seed=0" in capsys.readouterr().err
    assert (run / "decoder" / "model.safetensors").read_bytes() == whole


def test_a_diverging_training_raises_every_time(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["decoder", "train", str(small), *SETTINGS, "--weight-decay", "1e10", "--out", str(tmp_path / "run")]
    for _ in range(2):
        assert main(call) == 2
        assert "not finite" in capsys.readouterr().err
    assert not (tmp_path / "run" / "decoder").exists()
