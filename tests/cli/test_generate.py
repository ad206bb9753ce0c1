"""`unialign generate` and `unialign decoder`: images from the shipped weights, a decoder of one's own, refusals."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from unialign.cli import main
from unialign.data import EmbeddingStore, load_dataset
from unialign.errors import ConfigError, DataError
from unialign.generation import FlowDecoder, load_decoder
from unialign.io import lock_folder
from unialign.report import write_generation_report
from unialign.space import Space


def made(out: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return results


def test_a_held_out_item_from_two_modalities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["generate", "--item", "hedgehog", "--from", "drawing,speech", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "hedgehog" in said
    results = made(out)
    assert results["schema"] == 1
    assert results["data"]["name"] == "emoji"
    (image,) = results["images"]
    assert image["split"] == "test"
    assert image["parts"] == ["drawing of hedgehog", "speech of hedgehog"]
    assert len(image["files"]) == 4
    pil = pytest.importorskip("PIL.Image")
    for name in [*image["files"], "sheet.png"]:
        with pil.open(out / name) as file:
            assert file.mode == "RGB"
            assert min(file.size) >= 128
    # What each sample is nearest to among the training images, by the pixels themselves.
    assert [0 < copy["distance"] < 0.5 for copy in image["copies"]] == [True] * 4
    assert "nearest training item by the condition" in said
    assert "% off" in said
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == 4
    # Each sample's nearest training image, the true one, and three that lie near the condition; none is broken.
    assert page.count("data:image/webp") == 4 + 1 + 3
    assert page.count('<img src="data:image/') + page.count('class="copied" src="data:image/') == page.count("<img")
    assert "the true image" in page
    # Nothing is fetched from anywhere.
    assert "http" not in page.replace("http-equiv", "")


def test_two_commands_do_not_write_into_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["generate", "--item", "ship", "--samples", "1", "--out", str(out)]
    assert main(words) == 0
    before = (out / "results.json").read_bytes()
    with lock_folder(out, doing="writing images"):
        assert main([*words, "--seed", "5"]) == 2
    assert "writing images" in capsys.readouterr().err
    assert (out / "results.json").read_bytes() == before
    assert main([*words, "--seed", "5"]) == 0
    assert (out / "results.json").read_bytes() != before


def test_the_same_call_makes_the_same_images_and_config_repeats_it(tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    assert main(["generate", "--item", "ship", "--from", "text", "--seed", "3", "--out", str(first)]) == 0
    assert main(["generate", "--config", str(first / "config.yaml"), "--out", str(again)]) == 0
    for name in made(first)["images"][0]["files"]:
        assert (first / name).read_bytes() == (again / name).read_bytes()
    settings = yaml.safe_load((first / "config.yaml").read_text())["generation"]
    assert settings["fingerprint"] == load_dataset("emoji").fingerprint
    # Another call replaces the images, and leaves none of the old behind.
    assert main(["generate", "--item", "tiger", "--samples", "1", "--out", str(first)]) == 0
    assert len(list((first / "images").iterdir())) == 1


def test_items_together_and_in_a_strip(tmp_path: Path) -> None:
    items = ["--item", "ship", "--item", "tiger", "--from", "text", "--samples", "1"]
    assert main(["generate", *items, "--together", "--weights", "1", "3", "--out", str(tmp_path / "one")]) == 0
    (image,) = made(tmp_path / "one")["images"]
    assert image["name"] == "ship + tiger"
    assert main(["generate", *items, "--strip", "5", "--out", str(tmp_path / "strip")]) == 0
    assert len(made(tmp_path / "strip")["images"]) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "ask for something"),
        (["--item", "hedgehogg"], "did you mean 'hedgehog'"),
        (["--item", "hedgehog", "--from", "smell"], "the space has no 'smell'"),
        (["--item", "hedgehog", "--strip", "1"], "--strip must be an integer of at least 2"),
        (["--item", "hedgehog", "--guidance", "-1"], "guidance"),
        (["--item", "ship", "--item", "tiger", "--strip", "3", "--together"], "give one of them"),
        (["--item", "ship", "--item", "tiger", "--strip", "3", "--mix", "unnormalized_mean"], "leave --mix out"),
        (["--item", "ship", "--item", "ship", "--together"], "is asked for twice"),
        (["--item", "ship", "--from", ","], "--from names no modality"),
        (["--text", "red apple", "--from", "text"], "name one with --item"),
        (["--item", "ship", "--item", "tiger", "--strip", "100000"], "more than a page can hold"),
        (["--item", "hedgehog", "--steps", "0"], "steps"),
        (["--item", "hedgehog", "--space", "nowhere"], "not a folder with a saved space"),
        (["--item", "hedgehog", "--decoder", "nowhere"], "not a folder with a saved decoder"),
        (["--item", "1", "--data", "digits"], "no space comes with the package for 'digits', only for emoji"),
    ],
)
def test_refusals_are_one_paragraph_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["generate", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_space_without_a_frozen_anchor_or_of_other_data_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Space({"image": 256, "text": 256}, dim=128).save_pretrained(tmp_path / "trained")
    call = ["generate", "--item", "hedgehog", "--from", "text", "--out", str(tmp_path / "out")]
    assert main([*call, "--space", str(tmp_path / "trained")]) == 2
    assert "no decoder for this space" in capsys.readouterr().err
    foreign = Space({"text": 256}, dim=128, metadata={"data": {"name": "mine", "fingerprint": "0" * 64}})
    foreign.save_pretrained(tmp_path / "foreign")
    assert main([*call, "--space", str(tmp_path / "foreign")]) == 2
    assert "the space was trained on 'mine'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strip": "five"}, "--strip must be an integer"),
        ({"weights": 3}, "weights must be a list of numbers"),
        ({"items": "hedgehog"}, "items must be a list of texts"),
        ({"items": [7]}, "items must be a list of texts"),
        ({"combine": "nope"}, "combine"),
        ({"colour": 1}, "unknown setting colour"),
    ],
)
def test_settings_of_a_file_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, Any], message: str
) -> None:
    body = {"generation": {"items": ["hedgehog"], **settings}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(body))
    assert main(["generate", "--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_images_of_an_earlier_call_are_not_shown_as_those_of_this_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["generate", "--item", "ship", "--samples", "1", "--out", str(out)]) == 0
    assert (out / "thumbnails.zip").exists()
    emoji = load_dataset("emoji")
    bare = {name: emoji.array(name) for name in ("image", "text")}
    columns = {"image": emoji.provenance["columns"]["image"]}
    EmbeddingStore.write(tmp_path / "bare", bare, split=emoji.split, provenance={"columns": columns})
    training = ["--objective", "unialign", "--anchor", "image", "--epochs", "1", "--set", "frozen.image=whiten"]
    assert main(["train", str(tmp_path / "bare"), *training, "--out", str(tmp_path / "run")]) == 0
    made_by = ["--data", str(tmp_path / "bare"), "--space", str(tmp_path / "run" / "space"), "--decoder", "emoji"]
    assert main(["generate", *made_by, "--item", "#250", "--samples", "1", "--out", str(out)]) == 0
    assert not (out / "thumbnails.zip").exists()
    assert made(out)["images"][0]["copies"] == []


def test_another_kind_of_result_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("entries: {}\n")
    assert main(["generate", "--item", "hedgehog", "--out", str(tmp_path)]) == 2
    assert "holds another kind of result (comparison, not generation)" in capsys.readouterr().err


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Forty emoji in a store of their own, with the images."""
    pytest.importorskip("PIL")
    emoji = load_dataset("emoji")
    rows = np.arange(len(emoji.item_names))
    split = np.where(rows % 40 == 0, np.where(rows % 80 == 0, "train", "test"), "val")
    EmbeddingStore.write(
        tmp_path / "store",
        {"image": emoji.array("image"), "text": emoji.array("text")},
        split=split,
        names=emoji.item_names,
        provenance=emoji.provenance | {"columns": {"image": emoji.provenance["columns"]["image"]}},
        assets={"thumbnails.zip": emoji.asset("thumbnails.zip")},
    )
    return tmp_path / "store"


SETTINGS = ["--steps", "6", "--set", "directions=8", "latents=8", "width=16", "depth=1", "batch_size=4", "size=8"]


def test_a_decoder_of_ones_own(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "decoder"
    assert main(["decoder", "train", str(small), *SETTINGS, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "decoder of 8 x 8 pixels" in said
    assert "samples-00000006.png" in said
    before = (out / "decoder" / "model.safetensors").read_bytes()
    # The same command finds it finished; its own configuration repeats it.
    assert main(["decoder", "train", str(small), *SETTINGS, "--out", str(out)]) == 0
    assert main(["decoder", "train", "--config", str(out / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "decoder" / "model.safetensors").read_bytes() == before
    assert main(["decoder", "train", str(small), *SETTINGS, "--seed", "5", "--out", str(out)]) == 2
    assert "made with seed=0, this run has seed=5" in capsys.readouterr().err

    image = tmp_path / "look.png"
    assert main(["decoder", "sample", str(out / "decoder"), str(small), "--count", "5", "--out", str(image)]) == 0
    assert image.read_bytes().startswith(b"\x89PNG")

    training = ["--objective", "unialign", "--anchor", "image", "--epochs", "1", "--dim", "8", "--batch-size", "8"]
    space = ["train", str(small), *training, "--set", "frozen.image=whiten", "--out", str(tmp_path / "space")]
    assert main(space) == 0
    made_by = ["--space", str(tmp_path / "space" / "space"), "--decoder", str(out / "decoder")]
    call = ["generate", "--data", str(small), *made_by, "--item", "#40", "--from", "text", "--samples", "1"]
    assert main([*call, "--out", str(tmp_path / "images")]) == 0
    assert made(tmp_path / "images")["protocol"]["size"] == 8


def test_a_decoder_does_not_overwrite_other_results_or_read_other_embeddings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--item", "ship", "--samples", "1", "--out", str(tmp_path / "images")]) == 0
    before = (tmp_path / "images" / "config.yaml").read_bytes()
    assert main(["decoder", "train", "emoji", "--steps", "1", "--out", str(tmp_path / "images")]) == 2
    assert "holds another kind of result, not a decoder" in capsys.readouterr().err
    assert (tmp_path / "images" / "config.yaml").read_bytes() == before
    look = ["decoder", "sample", "emoji", "emoji", "--image", "drawing", "--out", str(tmp_path / "look.png")]
    assert main(look) == 2
    assert "'drawing' of 'emoji'" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["decoder", "sample", "emoji", "emoji", "--out", str(tmp_path / "file" / "look.png")]) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "name the data"),
        (["train", "emoji", "--set", "colour=3"], "unknown decoder setting colour"),
        (["train", "emoji", "--size", "3"], "size"),
        (["train", "emoji", "--image", "image"], "'image'"),
        (["train", "digits", "--image", "pix"], "has no asset thumbnails.zip"),
        (["sample", "emoji"], "name the data"),
        (["sample", "nowhere", "emoji"], "not a folder with a saved decoder"),
        (["sample", "emoji", "emoji", "--image", "text", "--count", "0"], "count"),
    ],
)
def test_refusals_of_decoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["decoder", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_shipped_decoder_fits_and_is_small() -> None:
    folder = Path(FlowDecoder.__module__.replace(".", "/")).parent
    shipped = Path(__file__).parents[2] / "src" / folder / "shipped"
    assert sum(path.stat().st_size for path in shipped.rglob("*") if path.is_file()) < 15_000_000


def test_an_empty_setting_of_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("items", "texts", "samples", "mix"):
        (tmp_path / "config.yaml").write_text(f"generation:\n  {key}:\n")
        assert main(["generate", "--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "out")]) == 2
        assert f"{key} has no value" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_data_than_the_files_bring_their_own_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--item", "ship", "--samples", "1", "--out", str(tmp_path / "out")]) == 0
    words = ["--config", str(tmp_path / "out/config.yaml"), "--data", "digits", "--out", str(tmp_path / "other")]
    assert main(["generate", *words]) == 2
    assert "no space comes with the package for 'digits'" in capsys.readouterr().err


def test_shares_are_on_the_page_and_in_the_results(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--item", "ship", "--from", "text", "drawing", "--weights", "3", "1", "--samples", "1"]
    assert main(["generate", *words, "--out", str(out)]) == 0
    assert made(out)["protocol"]["weights"] == [3.0, 1.0]
    assert made(out)["images"][0]["parts"] == ["text of ship (75 %)", "drawing of ship (25 %)"]
    assert "text of ship (75 %)" in (out / "report.html").read_text().replace("\xa0", " ")


def test_what_an_image_may_copy_is_shown_or_the_reason_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert main(["generate", "--item", "ship", "--samples", "1", "--out", str(tmp_path / "out")]) == 0
    assert "not compared with the training images" in capsys.readouterr().out
    page = (tmp_path / "out/report.html").read_text()
    assert "Not compared with the training images" in page
    assert "unialign[images]" in page
    assert "Under each sample stands" not in page


def test_a_damaged_result_is_no_traceback(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["generate", "--item", "ship", "--samples", "1", "--out", str(out)]) == 0
    whole = made(out)
    for key in ("protocol", "data", "images"):
        (out / "results.json").write_text(json.dumps({name: value for name, value in whole.items() if name != key}))
        with pytest.raises(DataError, match="holds no generated images"):
            write_generation_report(out)


def test_a_strip_leads_through_all_that_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", "--item", "ship", "--strip", "3", "--samples", "1", "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "cannot lead through 4 things" in capsys.readouterr().err
    there_and_back = ["--item", "ship", "--item", "tiger", "--item", "ship", "--from", "drawing", "--strip", "5"]
    assert main(["generate", *there_and_back, "--samples", "1", "--out", str(tmp_path / "out")]) == 0
    first, *_, last = made(tmp_path / "out")["images"]
    assert (tmp_path / "out" / first["files"][0]).read_bytes() == (tmp_path / "out" / last["files"][0]).read_bytes()


def test_a_prior_is_for_decoders_that_have_one() -> None:
    with pytest.raises(ConfigError, match="a decoder without one"):
        load_decoder("emoji", prior="somewhere")


def test_a_call_that_fails_leaves_the_earlier_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["generate", "--item", "ship", "--samples", "2", "--out", str(out)]) == 0
    (out / "images" / "of-my-own.png").write_bytes(b"mine")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("unialign.cli.generate.write_generation_report", full)
        assert main(["generate", "--item", "tiger", "--samples", "1", "--out", str(out)]) == 2
    assert "No space left" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert main(["generate", "--item", "ship", "--guidance", "1e38", "--out", str(out)]) == 2
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    # The next call removes what the first one made, and only that.
    assert main(["generate", "--item", "tiger", "--samples", "1", "--out", str(out)]) == 0
    left = {path.name for path in (out / "images").iterdir()}
    assert left == {"of-my-own.png", *(Path(name).name for name in made(out)["images"][0]["files"])}
    assert not list(out.glob(".new-*"))


def test_images_are_not_written_through_a_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "holiday"
    assert main(["generate", "--item", "ship", "--samples", "1", "--out", str(out)]) == 0
    (out / "images").rename(elsewhere)
    (out / "images").symlink_to(elsewhere)
    kept = sorted(path.name for path in elsewhere.iterdir())
    assert main(["generate", "--item", "tiger", "--samples", "1", "--out", str(out)]) == 2
    assert "is a link" in capsys.readouterr().err
    assert sorted(path.name for path in elsewhere.iterdir()) == kept


def test_a_folder_of_the_name_of_the_data_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emoji").mkdir()
    assert main(["generate", "--item", "ship", "--samples", "1", "--out", "out"]) == 0
    assert main(["generate", "--config", "out/config.yaml", "--out", "again"]) == 0


def test_a_finished_run_whose_decoder_is_damaged_is_mended(tmp_path: Path) -> None:
    command = ["decoder", "train", "emoji", *SETTINGS, "--out", str(tmp_path / "run")]
    assert main(command) == 0
    weights = tmp_path / "run" / "decoder" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-9])
    assert main(command) == 0
    assert weights.read_bytes() == whole


def test_a_decoder_of_other_settings_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["decoder", "train", "emoji", *SETTINGS, "--out", str(tmp_path / "run")]
    assert main(command) == 0
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "log.jsonl").unlink()
    whole = (tmp_path / "run" / "decoder" / "model.safetensors").read_bytes()
    assert main([*command, "--seed", "7"]) == 2
    assert "seed=0" in capsys.readouterr().err
    assert (tmp_path / "run" / "decoder" / "model.safetensors").read_bytes() == whole


def test_a_training_that_diverges_says_so_every_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["decoder", "train", "emoji", *SETTINGS, "weight_decay=1e10", "--out", str(tmp_path / "run")]
    for _ in range(2):
        assert main(command) == 2
        assert "not finite" in capsys.readouterr().err
    assert not (tmp_path / "run" / "decoder").exists()


def test_folders_that_are_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out in ("x" * 400, "a\0b"):
        assert main(["generate", "--item", "ship", "--out", out]) == 2
        assert main(["decoder", "train", "emoji", *SETTINGS, "--out", out]) == 2
        assert "Traceback" not in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("of somebody")
    assert main(["decoder", "train", "emoji", *SETTINGS, "--out", str(tmp_path)]) == 2
    assert "notes.txt" in capsys.readouterr().err
    assert main(["decoder", "sample", "emoji", "emoji", "--out", "/"]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_a_finished_run_without_its_log_is_still_finished(tmp_path: Path) -> None:
    command = ["decoder", "train", "emoji", *SETTINGS, "--out", str(tmp_path / "run")]
    assert main(command) == 0
    (tmp_path / "run" / "log.jsonl").unlink()
    assert main(command) == 0
