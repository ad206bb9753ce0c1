"""Test the images and the results folder of `unialign generate` with the shipped weights, and invalid arguments."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from unialign.cli import main
from unialign.data import EmbeddingStore, load_dataset
from unialign.errors import ConfigError, DataError
from unialign.generation import load_decoder
from unialign.io import lock_folder
from unialign.report import write_generation_report
from unialign.space import Space


def generate(out: Path, *arguments: str) -> int:
    return main(["generate", *arguments, "--out", str(out)])


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def ship(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results folder of one call; a test must copy the folder before changing files."""
    out = tmp_path_factory.mktemp("ship") / "out"
    assert generate(out, "--item", "ship", "--source", "text", "--samples", "2", "--seed", "3") == 0
    return out


@pytest.fixture
def out(ship: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ship, tmp_path / "out"))


def test_a_held_out_item_from_two_modalities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(tmp_path, "--item", "hedgehog", "--source", "drawing,speech") == 0
    printed = capsys.readouterr().out
    assert "hedgehog" in printed
    found = results(tmp_path)
    assert (found["schema"], found["data"]["name"]) == (1, "emoji")
    assert found["protocol"]["decoder"] == "emoji"
    assert "EfficientNet" in found["protocol"]["image encoder"]
    (image,) = found["images"]
    assert image["split"] == "test"
    assert image["parts"] == ["drawing of hedgehog", "speech of hedgehog"]
    assert len(image["files"]) == 4
    pil = pytest.importorskip("PIL.Image")
    for name in [*image["files"], "sheet.png"]:
        with pil.open(tmp_path / name) as file:
            assert file.mode == "RGB"
            assert min(file.size) >= 128
    assert [0 < copy["distance"] < 0.5 for copy in image["copies"]] == [True] * 4
    assert "training item nearest to the condition" in printed
    assert "nearest by pixels" in printed
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png") == 4
    assert page.count("data:image/webp") == 4 + 1 + 3
    assert page.count('<img src="data:image/') + page.count('class="copied" src="data:image/') == page.count("<img")
    assert "the true image" in page
    # The page loads no external resources.
    assert "http" not in page.replace("http-equiv", "")


def test_a_second_writer_is_rejected(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (out / "results.json").read_bytes()
    call = ("--item", "ship", "--samples", "1", "--seed", "5")
    with lock_folder(out, doing="writing images"):
        assert generate(out, *call) == 2
    assert "writing images" in capsys.readouterr().err
    assert (out / "results.json").read_bytes() == before
    assert generate(out, *call) == 0
    assert (out / "results.json").read_bytes() != before


def test_the_written_configuration_repeats_the_call(
    ship: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The name `emoji` refers to the data set even if a folder has the same name.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emoji").mkdir()
    assert generate(tmp_path / "again", "--config", str(ship / "config.yaml")) == 0
    for name in results(ship)["images"][0]["files"]:
        assert (ship / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    settings = yaml.safe_load((ship / "config.yaml").read_text())["generation"]
    assert settings["fingerprint"] == load_dataset("emoji").fingerprint
    assert generate(tmp_path / "again", "--item", "tiger", "--samples", "1") == 0
    assert len(list((tmp_path / "again" / "images").iterdir())) == 1


def test_a_mixture_with_weights(tmp_path: Path) -> None:
    items = ("--item", "ship", "--item", "tiger", "--source", "text", "--samples", "1")
    assert generate(tmp_path, *items, "--combine", "--weights", "1", "3") == 0
    found = results(tmp_path)
    (image,) = found["images"]
    assert image["name"] == "ship + tiger"
    assert found["protocol"]["weights"] == [1.0, 3.0]
    assert image["parts"] == ["text of ship (25 %)", "text of tiger (75 %)"]
    assert "text of tiger (75 %)" in (tmp_path / "report.html").read_text().replace("\xa0", " ")


def test_an_interpolation_visits_all_items(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(tmp_path, "--item", "ship", "--interpolate", "3", "--samples", "1") == 2
    assert "3 steps cannot contain 4 waypoints" in capsys.readouterr().err
    there_and_back = ("--item", "ship", "--item", "tiger", "--item", "ship", "--source", "drawing")
    assert generate(tmp_path, *there_and_back, "--interpolate", "5", "--samples", "1") == 0
    images = results(tmp_path)["images"]
    assert len(images) == 5
    first, last = ((tmp_path / image["files"][0]).read_bytes() for image in (images[0], images[-1]))
    assert first == last


def test_invalid_requests_print_one_paragraph_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = ["--item", "ship", "--item", "tiger"]
    for arguments, message in (
        ([], "nothing to generate"),
        (["--item", "hedgehogg"], "did you mean 'hedgehog'"),
        (["--item", "hedgehog", "--source", "smell"], "the space has no modality 'smell'"),
        (["--item", "hedgehog", "--interpolate", "1"], "interpolate must be an integer of at least 2"),
        (["--item", "hedgehog", "--guidance", "-1"], "guidance"),
        ([*two, "--interpolate", "3", "--combine"], "give only one of interpolate and combine"),
        ([*two, "--interpolate", "3", "--mix", "unnormalized_mean"], "omit mix"),
        (["--item", "ship", "--item", "ship", "--combine"], "is given twice"),
        (["--item", "ship", "--source", ","], "source must not be empty"),
        (["--text", "red apple", "--source", "text"], "items is empty; specify an item"),
        ([*two, "--interpolate", "100000"], "exceed the limit of 1000 images per page"),
        (["--item", "hedgehog", "--steps", "0"], "steps"),
        (["--item", "hedgehog", "--space", "nowhere"], "not a folder with a saved space"),
        (["--item", "hedgehog", "--decoder", "nowhere"], "not a folder with a saved decoder"),
        (["--item", "1", "--data", "digits"], "there is no built-in space for 'digits', only for emoji"),
    ):
        assert generate(tmp_path / "out", *arguments) == 2, arguments
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
        assert not (tmp_path / "out").exists()


def test_settings_of_a_file_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for settings, message in (
        ({"interpolate": "five"}, "interpolate must be an integer"),
        ({"weights": 3}, "weights must be a list"),
        ({"items": "hedgehog"}, "items must be a list such as ['hedgehog']"),
        ({"items": [7]}, "items must be"),
        ({"mix": "nope"}, "mix"),
        ({"color": 1}, "unknown generation setting 'color'"),
        ({"items": None}, "items"),
        ({"samples": None}, "samples"),
    ):
        body = {"generation": {"items": ["hedgehog"], **settings}}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(body))
        assert generate(tmp_path / "out", "--config", str(tmp_path / "config.yaml")) == 2, settings
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_data_other_than_in_the_file_use_their_own_space(
    ship: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(tmp_path, "--config", str(ship / "config.yaml"), "--data", "digits") == 2
    assert "there is no built-in space for 'digits'" in capsys.readouterr().err


def test_a_space_without_frozen_anchor_or_of_other_data_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Space({"image": 256, "text": 256}, dim=128).save_pretrained(tmp_path / "trained")
    call = ("--item", "hedgehog", "--source", "text")
    assert generate(tmp_path / "out", *call, "--space", str(tmp_path / "trained")) == 2
    assert "this space cannot be decoded" in capsys.readouterr().err
    foreign = Space({"text": 256}, dim=128, metadata={"data": {"name": "mine", "fingerprint": "0" * 64}})
    foreign.save_pretrained(tmp_path / "foreign")
    assert generate(tmp_path / "out", *call, "--space", str(tmp_path / "foreign")) == 2
    assert "the space was trained on 'mine'" in capsys.readouterr().err


def test_thumbnails_of_an_earlier_call_are_removed(out: Path, tmp_path: Path) -> None:
    assert (out / "thumbnails.zip").exists()
    emoji = load_dataset("emoji")
    bare = {name: emoji.array(name) for name in ("image", "text")}
    columns = {"image": emoji.provenance["columns"]["image"]}
    EmbeddingStore.write(tmp_path / "bare", bare, split=emoji.split, provenance={"columns": columns})
    training = ["--objective", "unialign", "--anchor", "image", "--epochs", "1", "--set", "frozen.image=whiten"]
    assert main(["train", str(tmp_path / "bare"), *training, "--out", str(tmp_path / "run")]) == 0
    models = ("--data", str(tmp_path / "bare"), "--space", str(tmp_path / "run" / "space"), "--decoder", "emoji")
    assert generate(out, *models, "--item", "#250", "--samples", "1") == 0
    assert not (out / "thumbnails.zip").exists()
    assert results(out)["images"][0]["copies"] == []


def test_another_kind_of_result_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("entries: {}\n")
    assert generate(tmp_path, "--item", "hedgehog") == 2
    assert "holds another kind of result (comparison, not generation)" in capsys.readouterr().err
    for folder in ("x" * 400, "a\0b"):
        assert main(["generate", "--item", "ship", "--out", folder]) == 2
        assert "Traceback" not in capsys.readouterr().err


def test_without_pillow_the_page_explains_missing_copies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert generate(tmp_path, "--item", "ship", "--samples", "1") == 0
    assert "not compared with the training images" in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text()
    assert "Not compared with the training images" in page
    assert "unialign[images]" in page
    assert "The small image under each sample" not in page


def test_damaged_results_raise_data_error(out: Path) -> None:
    whole = results(out)
    for key in ("protocol", "data", "images"):
        (out / "results.json").write_text(json.dumps({name: value for name, value in whole.items() if name != key}))
        with pytest.raises(DataError, match="does not contain generated images"):
            write_generation_report(out)


def test_a_prior_is_only_for_kandinsky() -> None:
    with pytest.raises(ConfigError, match="another decoder; omit prior"):
        load_decoder("emoji", prior="somewhere")


def test_a_failed_call_keeps_the_earlier_files(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "images" / "of-my-own.png").write_bytes(b"mine")
    before = contents(out)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("unialign.cli._generate_files.write_generation_report", full)
        assert generate(out, "--item", "tiger", "--samples", "1") == 2
    assert "No space left" in capsys.readouterr().err
    assert before == {path: data for path, data in contents(out).items() if path.name != ".lock"} | {
        path: data for path, data in before.items() if path.name == ".lock"
    }
    assert generate(out, "--item", "ship", "--guidance", "1e38") == 2
    assert {path for path in contents(out) if path.name != ".lock"} == {p for p in before if p.name != ".lock"}
    assert generate(out, "--item", "tiger", "--samples", "1") == 0
    left = {path.name for path in (out / "images").iterdir()}
    assert left == {"of-my-own.png", *(Path(name).name for name in results(out)["images"][0]["files"])}
    assert not list(out.glob(".new-*"))


def test_images_are_not_written_through_a_link(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = tmp_path / "holiday"
    (out / "images").rename(elsewhere)
    (out / "images").symlink_to(elsewhere)
    kept = contents(elsewhere)
    assert generate(out, "--item", "tiger", "--samples", "1") == 2
    assert "is a link" in capsys.readouterr().err
    assert contents(elsewhere) == kept
