"""Test `unialign evaluate --protocol gram` on real clips: counts, results, published numbers, report and messages."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gram_clips import CAPTIONS, write_clips
from unialign import named_data
from unialign.cli import main
from unialign.data import EmbeddingStore
from unialign.encoders import create
from unialign.evaluation import gram_benchmark, gram_protocol, gram_published
from unialign.space import Space

pytest.importorskip("av")
pytest.importorskip("soundfile")
NAMES = {"text": "builtin:chars?dim=32", "video": "builtin:frames:builtin:color", "audio": "builtin:logmel"}
OPTIONS = ["--protocol", "gram", "--resamples", "100"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gram")
    write_clips(folder / "msrvtt")
    encoders = {name: create(encoder, device="cpu") for name, encoder in NAMES.items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dims = {name: encoder.dim for name, encoder in encoders.items()}
        references = {name: encoder.reference for name, encoder in encoders.items()}
        Space(dims, dim=6, hidden=8, encoders=references).eval().save_pretrained(folder / "space")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("msrvtt", "space"):
        shutil.copytree(made / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(folder) / "results.json").read_text())
    return found


def test_raw_media_are_embedded_and_every_clip_is_counted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "space", "msrvtt", *OPTIONS, "--captions", "all", "--subset", "with-audio", "--out", "out"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "6 clips (4 with video, 4 with audio), 7 captions, 1 without media at chance" in printed
    assert "UniAlign                      58.7        54.6        2       1,000" in printed
    assert "differences below 2 points mean nothing" in printed
    results = read("out")
    every = results["gram"]["sets"]["all"]
    assert every["clips"] == len(CAPTIONS)
    assert every["captions"] == sum(map(len, CAPTIONS.values()))
    assert {(e["score"], e["stage"]) for e in every["entries"]} == {
        (name, 1) for name in ("centroid", "volume", "video", "audio")
    }
    assert results["gram"]["sets"]["with-audio"]["clips"] == 4
    assert list(results["runs"][0]["directions"]) == ["text->video+audio", "video+audio->text"]
    published = results["gram"]["published"]
    assert published["benchmark"] == "msrvtt"
    row = next(row for row in published["rows"] if row["model"] == "UniAlign")
    assert (row["text_to_clip"], row["clip_to_text"], row["stages"]) == (58.7, 54.6, 2)
    own = published["own"][0]
    assert own["text_to_clip"] == pytest.approx(100 * every["entries"][0]["metrics"]["recall@1"]["mean"])
    page = (here / "out/report.html").read_text()
    for text in ("text→video+audio", "58.7", "not stated", "Clips with audio", "numbers cannot be compared"):
        assert text in page

    store, space = EmbeddingStore.open("out/store"), Space.from_pretrained("space")
    direct = gram_protocol(store, space, captions="all", subset="with-audio", resamples=100)
    assert json.loads(json.dumps(direct.to_dict()["sets"]["all"])) == every

    assert main(["evaluate", "--config", "out/config.yaml", "--out", "again"]) == 0
    assert read("again")["gram"]["sets"] == results["gram"]["sets"]
    settings = yaml.safe_load(Path("out/config.yaml").read_text())
    assert settings["fingerprint"] == store.fingerprint
    Path("other.yaml").write_text(yaml.safe_dump(settings | {"data": "msrvtt", "fingerprint": "0" * 64}))
    assert main(["evaluate", "--config", "other.yaml", "--out", "failed"]) == 2
    assert f"has fingerprint {store.fingerprint}, expected 000" in capsys.readouterr().err
    assert main(["evaluate", "space", "out/store", *OPTIONS, "--benchmark", "didemo", "--out", "stored"]) == 0
    assert read("stored")["gram"]["sets"]["all"]["captions"] == len(CAPTIONS)
    assert read("stored")["gram"]["published"]["gallery"] == 1003


def test_a_prepared_table_is_evaluated(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", "gram:msrvtt", "--source", "msrvtt", "--out", "table"]) == 0
    printed = capsys.readouterr().out
    assert "clips (test): 6, 1,000 in version" in printed
    assert main(["evaluate", "space", "table", *OPTIONS, "--out", "out"]) == 0
    assert read("out")["gram"]["sets"]["all"]["clips"] == len(CAPTIONS)
    assert read("out")["gram"]["published"]["benchmark"] == "msrvtt"
    assert len(named_data.prepare("gram:msrvtt", source="msrvtt")) == 7


def test_a_failed_evaluation_does_not_block_the_corrected_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "space", "msrvtt", *OPTIONS, "--out", "out"]
    assert main([*words, "--joint", "video", "depth"]) == 2
    assert main(words) == 0
    assert main([*words, "--captions", "all"]) == 2
    assert "out holds another evaluation: captions is 'first' in the folder" in capsys.readouterr().err
    for name in ("vision", "audio"):
        shutil.rmtree(here / "msrvtt" / name)
    assert main([*words[:-1], "empty"]) == 2
    assert "has captions, but no clip has video or audio; the files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--captions", "all"], "--captions has no effect with --protocol all; it needs --protocol gram"),
        (["--protocol", "gram", "--sample", "3"], "--sample has no effect with --protocol gram"),
        (["--protocol", "grams"], "did you mean 'gram'"),
        ([*OPTIONS, "--benchmark", "msvd"], "benchmark"),
        ([*OPTIONS, "--split", "val"], "no items in the split 'val'"),
        ([*OPTIONS, "--text", "caption"], "needs the captions 'caption'"),
        ([*OPTIONS, "--joint", "video", "depth"], "'depth' is not a modality"),
    ],
)
def test_messages(here: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["evaluate", "space", "msrvtt", "--out", "out", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_space_without_encoders_needs_a_store(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Space({"text": 4, "video": 4}, dim=6, hidden=8).eval().save_pretrained("plain")
    assert main(["evaluate", "plain", "msrvtt", *OPTIONS, "--out", "out"]) == 2
    assert "encode the media with `embed`" in capsys.readouterr().err


def test_published_numbers_have_a_source_and_are_found_by_the_name_of_the_data() -> None:
    for benchmark in ("msrvtt", "didemo", "activitynet", "vatex", "audiocaps"):
        found = gram_published(benchmark)
        assert found["rows"]
        assert all(row["source"] and 0 < row["text_to_clip"] < 100 for row in found["rows"])
    names = ("MSR-VTT 1k-A", "gram:didemo", "ActivityNet_Captions", "digits")
    assert [gram_benchmark(name) for name in names] == ["msrvtt", "didemo", "activitynet", None]
