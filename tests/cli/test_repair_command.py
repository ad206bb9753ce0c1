"""Test `unialign repair`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import unialign as ua
from unialign.cli import main
from unialign.correction import Repair
from unialign.data import EmbeddingStore


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create files with a gap (`gap.npz`), without a gap (`good.npz`), and with NaN (`bad.npz`)."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(160, 16))
    a, b = (shared + 0.6 * rng.normal(size=(160, 16)) for _ in range(2))
    labels = np.array(["x", "y", ""])[rng.integers(0, 3, 160)]
    ids = np.array([f"item {i}" for i in range(160)])
    present = np.arange(160) % 5 != 0
    gap = {"image": a + 5 * np.eye(16)[0], "a<b>": b, "labels": labels, "ids": ids, "present.image": present}
    np.savez(tmp_path / "gap.npz", **gap)
    np.savez(tmp_path / "good.npz", image=a, text=b)
    np.savez(tmp_path / "bad.npz", image=np.full_like(a, np.nan), text=b)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_become_a_repaired_store(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("gap2.npz", **{("text" if k == "a<b>" else k): v for k, v in np.load("gap.npz").items()})
    assert main(["repair", "gap2.npz"]) == 0
    printed = capsys.readouterr().out
    folder = here / "runs/repair"
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml",
        "embeddings",
        "log.txt",
        "repair",
        "repair.npz",
        "report.html",
        "results.json",
    }
    assert (folder / "log.txt").read_text() in printed
    results = json.loads((folder / "results.json").read_text())
    assert results["choice"] in ("center", "coral")
    assert printed.startswith(results["answer"])
    store = EmbeddingStore.open(folder / "embeddings")
    arrays = np.load("gap2.npz")
    assert store.keys == tuple(arrays["ids"])
    assert [store.label_names[code] if code >= 0 else "" for code in store.labels] == arrays["labels"].tolist()
    np.testing.assert_array_equal(store.present("image"), arrays["present.image"])
    expected = Repair.load(folder / "repair").apply({"text": arrays["text"].astype(np.float32)})["text"]
    np.testing.assert_allclose(store.array("text"), expected.numpy(), atol=1e-6)
    page = (folder / "report.html").read_text()
    assert "image-text, before" in page
    assert "Balanced NDCG@10" in page

    # The settings file can be used to repeat the repair, and a repaired collection needs no second repair.
    assert yaml.safe_load((folder / "config.yaml").read_text())["sources"] == ["gap2.npz"]
    assert main(["repair", "--config", "runs/repair/config.yaml", "--out", "again"]) == 0
    again = json.loads((here / "again/results.json").read_text())
    assert again["table"] == results["table"]
    assert main(["repair", "runs/repair/embeddings", "--out", "again"]) == 0
    assert not (here / "again/embeddings").exists()
    assert "no copy is written" in capsys.readouterr().out


def test_a_space_is_repaired(here: Path) -> None:
    torch.manual_seed(0)
    space = ua.Space({"image": 16, "text": 16}, dim=8, head="linear", input_norm="none")
    space.save_pretrained("space")
    arrays = dict(np.load("gap.npz"))
    features = {"image": arrays["image"], "text": arrays["a<b>"]}
    np.savez("features.npz", **features)
    assert main(["repair", "space", "features.npz", "--methods", "coral", "--quiet"]) == 0
    repaired = ua.Space.from_pretrained("runs/repair/space")
    found = Repair.load("runs/repair/repair")
    assert found.choice == "coral"
    expected = found.apply(space.encode(features))
    for name, rows in repaired.encode(features).items():
        assert float((rows - expected[name]).abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no embeddings are given"),
        (["none.npz"], "none.npz"),
        (["bad.npz"], "row 0 holds nan at column 0"),
        (["good.npz", "--holdout", "2"], "holdout"),
        (["good.npz", "--methods", "centre"], "center"),
        (["gap.npz"], "file name"),
        (["space"], "features are needed"),
        (["good.npz", "--out", "."], "inside"),
    ],
)
def test_errors_are_one_paragraph(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    ua.Space({"image": 16, "text": 16}, dim=8).save_pretrained("space")
    assert main(["repair", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("unialign repair: ")
    assert message in error
    assert not (here / "runs/repair/results.json").exists()


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_failure_keeps_an_earlier_repair(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("unialign.correction._apply_store._BATCH", 10)
    arrays = {k.replace("a<b>", "text"): v.copy() for k, v in np.load("gap.npz").items()}
    np.savez("mine.npz", **arrays)
    assert main(["repair", "mine.npz", "--quiet"]) == 0
    before = _files(here / "runs/repair")
    # The repair is fitted without items of the test split.
    arrays["split"] = np.where(np.arange(160) < 150, "train", "test")
    arrays["text"][157, 2] = np.inf
    np.savez("mine.npz", **arrays)
    assert main(["repair", "mine.npz", "--methods", "center"]) == 2
    assert "'text' row 157 holds inf at column 2" in capsys.readouterr().err
    assert _files(here / "runs/repair") == before
    assert main(["repair", "mine.npz", "--out", "new", "--methods", "center"]) == 2
    assert not (here / "new").exists()
    # The command does not replace other files.
    (here / "runs/repair/embeddings/store.json").unlink()
    assert main(["repair", "good.npz"]) == 2
    assert "is not a store" in capsys.readouterr().err


def test_an_interrupted_command_leaves_no_results_of_other_files(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez("mine.npz", **{k.replace("a<b>", "text"): v for k, v in np.load("gap.npz").items()})
    assert main(["repair", "good.npz", "--quiet"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Repair, "save", _interrupt)
        assert main(["repair", "mine.npz", "--quiet"]) == 130
    names = {path.name for path in (here / "runs/repair").iterdir()}
    assert "embeddings" in names
    assert not names & {"results.json", "report.html", "log.txt"}
    assert main(["repair", "mine.npz", "--quiet"]) == 0
    assert json.loads((here / "runs/repair/results.json").read_text())["data"]["name"] == "mine"
    assert main(["repair", "good.npz", "--quiet"]) == 0
    assert not (here / "runs/repair/embeddings").exists()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_source_in_the_results_folder_is_rejected(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repair", "good.npz", "--quiet"]) == 0
    arrays = np.load("good.npz")
    np.save("runs/repair/a=b.npy", arrays["image"])
    np.save("text.npy", arrays["text"])
    for source in ("runs/repair/a=b.npy", "image=runs/repair/a=b.npy"):
        assert main(["repair", source, "text.npy"]) == 2
        assert "is inside runs/repair" in capsys.readouterr().err


def test_names_in_a_page_are_escaped(here: Path) -> None:
    from unialign.report import write_repair_report

    assert main(["repair", "good.npz", "--quiet"]) == 0
    file = here / "runs/repair/results.json"
    file.write_text(file.read_text().replace("image-text", "<script>-text"))
    page = write_repair_report(here / "runs/repair").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
