"""Test `unialign probe` on a store, on files and on raw media."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import unialign as ua
from unialign import probes
from unialign.cli import main
from unialign.data import EmbeddingStore
from unialign.encoders import create
from unialign.space import Space

CLASSES = ("cat", "ship", "tree", "owl", "fox", "bee")
COLORS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200), (200, 30, 200))


@pytest.fixture(scope="module")
def space() -> Space:
    torch.manual_seed(0)
    image = create("builtin:conv?size=32", device="cpu")
    text = create("builtin:chars?dim=32", device="cpu")
    encoders = {"image": image.reference, "text": text.reference}
    return Space({"image": image.dim, "text": text.dim}, dim=8, hidden=16, encoders=encoders).eval()


def pictures(count: int) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(1)
    pixels = [np.full((24, 24, 3), COLORS[i % 6], float) + rng.normal(0, 40, (24, 24, 3)) for i in range(count)]
    return [picture.clip(0, 255).astype(np.uint8) for picture in pixels]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space: Space) -> Path:
    space.save_pretrained(tmp_path / "space")
    rows = pictures(48)
    for i, picture in enumerate(rows):
        folder = tmp_path / "photos" / CLASSES[i % 6]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{i:02}.png")
    from unialign.encoders import encode_media
    from unialign.media import as_media

    encoder = space.encoder("image")
    features = encode_media(encoder, [as_media(picture, "image", decoding=encoder.decoding) for picture in rows])
    split = np.array(["train", "train", "val", "test"])[np.arange(48) // 6 % 4]
    columns = {"image": features.numpy(), "text": np.ones((48, 32))}
    EmbeddingStore.write(tmp_path / "store", columns, split=split, labels=np.arange(48) % 6, label_names=CLASSES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results(folder: str) -> Any:
    return json.loads(Path(folder, "results.json").read_text())


@pytest.mark.parametrize("task", ["linear", "knn"])
def test_trained_probes_of_a_store(task: str, here: Path, space: Space, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--C", "0.1", "1"] if task == "linear" else ["--k", "1", "3", "--temperature", "0.05", "0.5"]
    assert main(["probe", "space", "store", "--task", task, *options]) == 0
    printed = capsys.readouterr().out
    folder = here / "runs/probe"
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "log.txt", "report.html", "results.json"}
    store = EmbeddingStore.open("store")
    z = space.encode({"image": np.array(store.array("image"))})["image"]
    y = np.array(store.label_names)[store.labels]
    if task == "linear":
        expected = probes.linear(z, y, store.split, C=(0.1, 1.0))
    else:
        expected = probes.knn(z, y, store.split, k=(1, 3), temperature=(0.05, 0.5))
    found = results("runs/probe")
    assert {name: value["mean"] for name, value in found["metrics"].items()} == expected.metrics
    assert found["validation"] == [dict(record) for record in expected.validation]
    assert found["settings"] == expected.settings
    assert found["counts"] == {"train": 24, "val": 12, "test": 12}
    assert (folder / "log.txt").read_text() in printed
    page = (folder / "report.html").read_text()
    assert "Choice of settings" in page
    assert all(name in page for name in CLASSES)
    # The same settings from the file give the same numbers.
    assert main(["probe", "--config", "runs/probe/config.yaml", "--out", "again"]) == 0
    again = results("again")
    assert (again["metrics"], again["per_class"]) == (found["metrics"], found["per_class"])


def test_features_are_a_baseline(here: Path) -> None:
    assert main(["probe", "space", "store", "--task", "knn", "--k", "3", "--input", "features"]) == 0
    store = EmbeddingStore.open("store")
    expected = probes.knn(store.array("image"), store.labels, store.split, k=3)
    assert results("runs/probe")["metrics"]["top1"]["mean"] == expected.metrics["top1"]


def test_zero_shot_of_a_store_and_of_media(here: Path, space: Space) -> None:
    Path("templates.txt").write_text("a photo of a {}.\n\nthe {}\n")
    zero_shot = ["--task", "zero-shot", "--templates", "templates.txt"]
    assert main(["probe", "space", "store", *zero_shot]) == 0
    store = EmbeddingStore.open("store")
    rows = store.rows("test")
    features = np.array(store.array("image"))[rows]
    expected = probes.zero_shot(
        space, features, store.label_names, templates=("a photo of a {}.", "the {}"), labels=store.labels[rows]
    )
    found = results("runs/probe")
    assert found["metrics"]["top1"]["mean"] == expected.metrics["top1"]
    assert found["settings"]["templates"] == ["a photo of a {}.", "the {}"]
    # The encoders of the space embed a folder with one subfolder per class.
    media = ["probe", "space", "photos", "--layout", "classes", *zero_shot, "--split", "train", "--out", "media"]
    assert main(media) == 0
    found = results("media")
    assert found["counts"] == {"items": 48, "absent": 0, "labeled": 48}
    names = EmbeddingStore.open("media/store").label_names
    raw = probes.zero_shot(
        space,
        pictures(48),
        names,
        templates=("a photo of a {}.", "the {}"),
        labels=[names.index(CLASSES[i % 6]) for i in range(48)],
    )
    assert found["metrics"]["top1"]["mean"] == pytest.approx(raw.metrics["top1"], abs=1e-12)
    # The same command uses the finished store.
    before = Path("media/store/store.json").stat().st_mtime_ns
    assert main(media) == 0
    assert Path("media/store/store.json").stat().st_mtime_ns == before


def test_names_of_classes(here: Path) -> None:
    store = EmbeddingStore.open("store")
    np.savez("plain.npz", image=np.array(store.array("image")), labels=np.array(store.labels))
    arguments = ["probe", "space", "plain.npz", "--task", "zero-shot"]
    assert main(arguments) == 2
    names = list(store.label_names)
    assert main([*arguments, "--labels", *names]) == 0
    first = results("runs/probe")["metrics"]
    Path("names.txt").write_text("\n".join(names))
    assert main([*arguments, "--labels", "names.txt", "--out", "again"]) == 0
    assert results("again")["metrics"] == first


def test_errors(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = EmbeddingStore.open("store")
    np.savez("unlabeled.npz", image=np.array(store.array("image")))
    Path("empty.txt").write_text("\n")
    ua.Space({"image": 64, "text": 32}, dim=8).save_pretrained("other")
    cases = [
        (["space", "store"], "no task is given; add --task zero-shot or linear or knn"),
        (["space", "store", "--task", "linear", "--k", "5"], "--k has no effect with --task linear; it needs"),
        (["space", "photos", "--layout", "classes", "--task", "zero-shot"], "choose --split train"),
        (["space"], "no space or no data is given"),
        (["space", "missing", "--task", "knn"], "missing"),
        (["space", "store", "--task", "best"], "unknown task 'best'"),
        (["space", "store", "--task", "knn", "--modality", "audio"], "the space has no modality 'audio'"),
        (["space", "unlabeled.npz", "--task", "knn"], "has no labels"),
        (["space", "store", "--task", "knn", "--k", "0"], "k must be an integer of at least 1"),
        (["space", "store", "--task", "knn", "--k", "999"], "k is 999, but there are only 24 training items"),
        (["space", "store", "--task", "zero-shot", "--templates", "empty.txt"], "empty.txt is empty"),
        (["space", "store", "--task", "zero-shot", "--templates", "none.txt"], "none.txt cannot be read"),
        (["space", "store", "--task", "zero-shot", "--labels", "a", "b"], "--labels has 2 names"),
        (["space", "photos", "--layout", "classes", "--modality", "text", "--task", "knn"], "text cannot be encoded"),
    ]
    for arguments, message in cases:
        assert main(["probe", *arguments, "--out", "failed"]) == 2, arguments
        assert message in capsys.readouterr().err, arguments
    Path("kept").mkdir()
    Path("kept/notes.txt").write_text("mine")
    assert main(["probe", "space", "store", "--task", "knn", "--k", "3", "--out", "kept"]) == 2
    assert "holds notes.txt and no probe" in capsys.readouterr().err
