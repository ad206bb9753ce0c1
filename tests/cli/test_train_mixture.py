"""Test `unialign train --source` on stores, on files of embeddings and on item tables."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unialign import Space, fit
from unialign.cli import main
from unialign.config import TrainConfig, read_yaml
from unialign.data import EmbeddingStore, Items, Mixture

QUICK = ("--epochs", "2", "--batch-size", "8", "--dim", "4", "--hidden", "8", "--device", "cpu")


def columns(seed: int, items: int, *names: str) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(items, 3))
    maps = {name: np.random.default_rng(len(name)).normal(size=(3, 5)) for name in names}
    return {name: (latent @ maps[name]).astype(np.float32) for name in names}


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, EmbeddingStore]:
    found = {}
    for seed, (name, modality, items) in enumerate((("photos", "image", 40), ("sounds", "sound", 30))):
        split = np.where(np.arange(items) % 3 == 2, "test", "train")
        found[name] = EmbeddingStore.write(tmp_path / name, columns(seed, items, modality, "text"), split=split)
    return found


def options(stores: dict[str, EmbeddingStore], *more: str) -> list[str]:
    sources = [word for name, store in stores.items() for word in ("--source", f"{name}={store.path}")]
    return ["train", *sources, *QUICK, *more]


def weights(folder: Path) -> bytes:
    return (folder / "space" / "model.safetensors").read_bytes()


def test_stores_with_weights(stores: dict[str, EmbeddingStore], tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    command = options(stores, "--weight", "photos=2", "--mix", "blend", "--out", str(out))
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "photos+sounds: unialign over image, text, sound" in printed
    config = TrainConfig(epochs=2, batch_size=8, dim=4, hidden=8)
    expected = fit(Mixture(stores, weights={"photos": 2}, mode="blend"), config, device="cpu", progress="none").space
    for name, tensor in Space.from_pretrained(out / "space").state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), expected.state_dict()[name].numpy())
    found = json.loads((out / "sources.json").read_text())["sources"]
    assert {name: entry["items"] for name, entry in found.items()} == {"photos": 13, "sounds": 10}
    assert set(found["photos"]["directions"]) == {"image->text", "text->image"}
    recall = 100 * found["sounds"]["directions"]["sound->text"]["recall@1"]
    (line,) = [line for line in printed.splitlines() if line.startswith("sounds: sound->text")]
    assert line.split()[-3] == f"{recall:.1f}"
    assert main(command) == 0
    assert "already finished" in capsys.readouterr().out


def test_a_run_is_repeated_from_its_configuration(
    stores: dict[str, EmbeddingStore], tmp_path: Path, capsys: Any
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    assert main(options(stores, "--mix", "blend", "--epoch-steps", "5", "--out", str(first))) == 0
    file = str(first / "config.yaml")
    assert read_yaml(first / "config.yaml")["data"]["mixture"]["epoch_steps"] == 5
    assert main(["train", "--config", file, "--out", str(again), "--device", "cpu"]) == 0
    assert weights(first) == weights(again)
    other = tmp_path / "other"
    assert main(["train", "--config", file, "--weight", "photos=3", "--out", str(other), "--device", "cpu"]) == 0
    assert weights(first) != weights(other)
    capsys.readouterr()
    assert main(["train", "--config", file, "--mix", "alternate", "--out", str(first)]) == 2
    assert "but this run has the weights photos=1, sounds=1, mode='alternate'" in capsys.readouterr().err
    EmbeddingStore.write(tmp_path / "photos", columns(7, 40, "image", "text"), overwrite="replace")
    assert main(["train", "--config", file, "--out", str(tmp_path / "changed")]) == 2
    assert "has fingerprint" in capsys.readouterr().err


def test_files_of_embeddings(tmp_path: Path) -> None:
    words = ["train"]
    for name, modality, items in (("photos", "image", 40), ("sounds", "sound", 36)):
        for column, array in columns(len(name), items, modality, "text").items():
            path = tmp_path / name / f"{column}.npy"
            path.parent.mkdir(exist_ok=True)
            np.save(path, array)
            words += ["--source", f"{name}={column}={path}"]
    command = [*words, *QUICK, "--out", str(tmp_path / "run")]
    assert main(command) == 0
    first = weights(tmp_path / "run")
    assert main(command) == 0
    assert main(["train", "--config", str(tmp_path / "run" / "config.yaml"), "--out", str(tmp_path / "b")]) == 0
    assert weights(tmp_path / "run") == first == weights(tmp_path / "b")


def table(path: Path, name: str, modality: str) -> Path:
    records = [
        {"id": f"{name}{number}", "text": f"{modality} number {number}", modality: np.eye(30, 4, -(number % 27))[:, 0]}
        for number in range(30)
    ]
    Items.from_records(records, kinds={"text": "text", modality: "array"}).save(path / name)
    return path / name


def test_item_tables_are_embedded_source_by_source(tmp_path: Path, capsys: Any) -> None:
    paths = {name: table(tmp_path, name, modality) for name, modality in (("p", "pose"), ("s", "pulse"))}
    sources = [word for name, path in paths.items() for word in ("--source", f"{name}={path}")]
    command = [
        "train",
        *sources,
        "--encode",
        "text=builtin:chars",
        "--encode",
        "pulse=builtin:identity",
        "--workers",
        "0",
        *QUICK,
    ]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0, capsys.readouterr().err
    data = read_yaml(tmp_path / "run" / "config.yaml")["data"]
    assert data["sources"] == {name: str(tmp_path / "run" / "data" / name / "store") for name in paths}
    space = Space.from_pretrained(tmp_path / "run" / "space")
    assert set(space.modalities) == {"text", "pose", "pulse"}
    assert set(space.encoders) == {"text", "pose", "pulse"}
    first = weights(tmp_path / "run")
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    assert main(["train", "--config", str(tmp_path / "run" / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
    assert first == weights(tmp_path / "run") == weights(tmp_path / "again")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "photos"], "--source must have the form NAME=DATA, got 'photos'"),
        (["--source", "photos=emoji"], "at least two sources, got only 'photos'"),
        (["emoji", "--source", "a=emoji", "--source", "b=digits"], "so emoji belongs to none"),
        (["--source", "a=emoji", "--source", "b=nowhere"], "nowhere"),
        (["--source", "a=emoji", "--source", "b=digits", "--weight", "c=2"], "--weight c=2 does not name a source"),
        (["--source", "a=emoji", "--source", "b=digits", "--weight", "a=two"], "form NAME=NUMBER, got 'a=two'"),
        (["--source", "a=emoji", "--source", "b=digits", "--weight", "a=0"], "the weight of 'a'"),
        (["emoji", "--mix", "blend"], "--mix describes a mixture"),
        (["emoji", "--shared-ids"], "--shared-ids describes a mixture"),
    ],
)
def test_errors_of_options(words: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    assert main(["train", *words, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


def test_sources_that_nothing_ties(tmp_path: Path, capsys: Any) -> None:
    a = EmbeddingStore.write(tmp_path / "a", columns(0, 20, "image", "text"))
    b = EmbeddingStore.write(tmp_path / "b", columns(1, 20, "sound", "speech"))
    assert main(["train", "--source", f"a={a.path}", "--source", f"b={b.path}", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "no source ties 'sound' to 'image', directly or through another modality" in error
    assert "components: image, text; sound, speech" in error
