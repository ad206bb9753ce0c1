"""Test `unialign evaluate --protocol omni` on a store and on an item table of raw media."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import raw_spaces
from unialign.cli import main
from unialign.config import EmbedConfig
from unialign.data import EmbeddingStore
from unialign.evaluation import evaluate, omni
from unialign.items import Items
from unialign.space import Space


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(0)
    raw_spaces.make_space().save_pretrained(tmp_path / "space")
    raw_spaces.store().save(tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results(folder: str) -> Any:
    return json.loads(Path(folder, "results.json").read_text())


def test_a_store(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", "space", "store", "--protocol", "omni", "--split", "train", "--k", "3"]
    assert main([*arguments, "--resamples", "200"]) == 0
    printed = capsys.readouterr().out
    folder = here / "runs/evaluate"
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "log.txt", "report.html", "results.json"}
    space, store = Space.from_pretrained("space"), EmbeddingStore.open("store")
    expected = omni(store.select(space.modalities), space, split="train", k=3, resamples=200)
    found = results("runs/evaluate")["omni"]
    assert {key: found[key] for key in expected.to_dict()} == json.loads(json.dumps(expected.to_dict()))
    assert found["answer"] in printed
    page = (folder / "report.html").read_text()
    for words in ("Directions", "Equivalence and gap", "Mixed galleries", "sensor → text"):
        assert words in page
    assert main(["evaluate", "--config", "runs/evaluate/config.yaml", "--out", "again"]) == 0
    assert results("again")["omni"] == found


def test_chosen_modalities_and_pools(here: Path) -> None:
    base = ["evaluate", "space", "store", "--protocol", "omni", "--split", "train", "--k", "3", "--resamples", "100"]
    assert main([*base, "--modalities", "text,image", "--out", "two"]) == 0
    assert list(results("two")["omni"]["pairs"]) == ["text-image"]
    assert main([*base, "--pool", "pair", "--out", "each"]) == 0
    pairs = results("each")["omni"]["pairs"]
    assert pairs["text-image"] == results("two")["omni"]["pairs"]["text-image"] | {
        "p_holm": pairs["text-image"]["p_holm"]
    }
    assert len({pair["items"] for pair in pairs.values()}) > 1


def test_raw_media(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = raw_spaces.raw()
    folder = here / "pictures"
    folder.mkdir()
    records = []
    from PIL import Image

    for i, picture in enumerate(raw["image"]):
        record = {"id": f"item{i}", "text": raw["text"][i]}
        if picture is not None:
            Image.fromarray(picture).save(folder / f"{i}.png")
            record["image"] = f"pictures/{i}.png"
        records.append(record)
    Path("table.jsonl").write_text("\n".join(map(json.dumps, records)))
    Items.open("table.jsonl", rules={"text": "text", "image": "image"}).save("table")
    assert main(["evaluate", "space", "table", "--protocol", "omni", "--k", "3", "--resamples", "100"]) == 0
    found = results("runs/evaluate")["omni"]
    present = np.array([picture is not None for picture in raw["image"]])
    z = Space.from_pretrained("space").encode({name: raw[name] for name in ("text", "image")})
    expected = omni({name: z[name] for name in ("text", "image")}, present={"image": present}, k=3, resamples=100)
    pair = found["pairs"].get("text-image") or found["pairs"]["image-text"]
    assert pair["items"] == int(present.sum())
    one = expected.pairs["text-image"].metrics["rank_correlation"].estimate
    assert pair["metrics"]["rank_correlation"]["mean"] == pytest.approx(one, abs=1e-5)

    # All protocols and the probe accept the same table, and check a required fingerprint.
    settings = yaml.safe_load(Path("runs/evaluate/config.yaml").read_text())
    store = EmbeddingStore.open("runs/evaluate/store")
    assert settings["fingerprint"] == store.fingerprint
    assert main(["evaluate", "space", "table", "--resamples", "100", "--out", "every"]) == 0
    stored = ["evaluate", "space", "runs/evaluate/store", "--resamples", "100", "--out", "stored"]
    assert main(stored) == 0
    assert results("every")["objectives"]["space"] == results("stored")["objectives"]["space"]
    assert (
        yaml.safe_load(Path("every/config.yaml").read_text())["fingerprint"] == results("every")["data"]["fingerprint"]
    )
    direct = evaluate(Items.load("table"), Space.from_pretrained("space"), embedding=EmbedConfig(workers=0))
    assert direct.metrics == pytest.approx(results("every")["runs"][0]["metrics"])
    media = ["evaluate", "space", "table.jsonl", "--resamples", "100", "--out", "rules"]
    assert main(media) == 2
    assert "If the data are media, add --rule" in capsys.readouterr().err
    assert main([*media, "--rule", "text=text", "--rule", "image=image"]) == 0
    assert results("rules")["runs"] == results("every")["runs"]
    base = {"space": "space", "data": "table", "fingerprint": "0" * 64}
    for command, more in (
        ("evaluate", {}),
        ("evaluate", {"protocol": "omni"}),
        ("probe", {"task": "knn", "modality": "text"}),
    ):
        Path("other.yaml").write_text(yaml.safe_dump(base | more))
        capsys.readouterr()
        assert main([command, "--config", "other.yaml", "--out", f"failed-{command}-{len(more)}"]) == 2
        assert "expected 000" in capsys.readouterr().err


def test_errors(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["evaluate", "space", "store", "--out", "failed"]
    cases = [
        ([*base, "--protocol", "omni", "--pool", "all"], "unknown pool 'all'"),
        ([*base, "--protocol", "omni", "--modalities", "text", "video"], "video is missing: the space has"),
        ([*base, "--protocol", "omni", "--modalities", "text"], "needs at least two modalities"),
        ([*base, "--protocol", "omni", "--anchor", "text"], "--anchor has no effect with --protocol omni"),
        ([*base, "--pool", "pair"], "--pool has no effect with --protocol all"),
        ([*base, "--protocol", "omni", "--k", "0"], "k must be an integer of at least 1"),
    ]
    for arguments, message in cases:
        assert main(arguments) == 2, arguments
        assert message in capsys.readouterr().err, arguments
