"""Test `unialign bridge`."""

import json
import re

import numpy as np
import pytest
import yaml

from unialign.cli import main
from unialign.cli._bridge import read_known, read_pairs
from unialign.config import BridgeConfig
from unialign.migration import Bridge, bridge, open_rows


@pytest.fixture
def here(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    new = rng.standard_normal((600, 8)) @ rng.standard_normal((8, 24)) + 0.3 * rng.standard_normal((600, 24))
    old = new + 0.4 * rng.standard_normal(new.shape)
    rows = rng.permutation(600)[:100]
    for name, array in {"old": old, "new": new[rows], "queries": new[:60], "old_queries": old[:60]}.items():
        np.save(tmp_path / f"{name}.npy", array.astype(np.float32))
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "negative.npy", rows - 5)
    np.save(tmp_path / "known.npy", np.arange(60))
    (tmp_path / "names.txt").write_text("a\n" * 100)
    (tmp_path / "rows.txt").write_text("\n".join(map(str, rows)) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMAND = ["bridge", "old.npy", "new.npy", "--pairs", "rows.npy", "--queries", "queries.npy"]


def test_a_bridge_writes_a_results_folder(here, capsys):
    assert main([*COMMAND, "--known", "known.npy", "--old-queries", "old_queries.npy", "--write-index"]) == 0
    printed = capsys.readouterr().out
    folder = here / "runs/bridge"
    assert sorted(path.name for path in folder.iterdir()) == [
        "bridge.json",
        "bridge.safetensors",
        "config.yaml",
        "log.txt",
        "mapped.npy",
        "report.html",
        "results.json",
    ]
    old, new = np.load("old.npy"), np.load("new.npy")
    rows, queries = np.load("rows.npy"), np.load("queries.npy")
    expected = bridge(
        old, new, pairs=rows, queries=queries, known=np.arange(60), old_queries=np.load("old_queries.npy")
    )
    results = json.loads((folder / "results.json").read_text())
    assert results["schema"] == 1
    assert results["bridge"] == json.loads(json.dumps(expected.to_dict()))
    assert results["summary"][expected.method]["overlap@10"]["mean"] == expected.overlap.estimate
    assert {run["objective"] for run in results["runs"]} == set(expected.errors)
    assert printed.startswith(expected.text())
    assert (folder / "log.txt").read_text() == expected.text() + "\n"
    loaded = Bridge.load(folder)
    np.testing.assert_array_equal(np.load(folder / "mapped.npy"), expected.apply())
    np.testing.assert_allclose(loaded.apply(old), expected.apply(), atol=1e-5)


def test_the_report_states_the_verdict(here):
    assert main(COMMAND) == 0
    page = (here / "runs/bridge/report.html").read_text("utf-8")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace("\u00a0", " ")
    verdict = json.loads((here / "runs/bridge/results.json").read_text())["bridge"]["verdict"]
    assert f"Verdict: {verdict}." in text
    assert "Candidate maps" in text
    assert "Task scores" not in text
    assert "<script" not in page


def test_a_configuration_repeats_the_run(here):
    assert main([*COMMAND, "--goal", "0.5", "--methods", "ridge", "--candidates", "50"]) == 0
    written = yaml.safe_load((here / "runs/bridge/config.yaml").read_text())
    assert (written["goal"], written["methods"], written["candidates"]) == (0.5, ["ridge"], 50)
    assert main(["bridge", "--config", "runs/bridge/config.yaml", "--out", "again"]) == 0
    first, second = (json.loads((here / f / "results.json").read_text()) for f in ("runs/bridge", "again"))
    assert first["bridge"] == second["bridge"]


def test_row_numbers_and_ids_can_be_text(here):
    assert main([*COMMAND[:3], "--pairs", "rows.txt", "--queries", "queries.npy"]) == 0
    first = json.loads((here / "runs/bridge/results.json").read_text())["bridge"]
    assert main([*COMMAND, "--out", "again"]) == 0
    assert first == json.loads((here / "again/results.json").read_text())["bridge"]


def test_a_byte_order_mark_is_no_part_of_the_first_row_number(here):
    rows = (here / "rows.txt").read_text()
    (here / "marked.txt").write_text(rows, "utf-8-sig")
    config = BridgeConfig(old="old.npy", pairs="marked.txt", known="marked.txt")
    expected = np.load("rows.npy")
    np.testing.assert_array_equal(read_pairs(config, open_rows("old.npy", "old")), expected)
    np.testing.assert_array_equal(read_known(config), expected)


@pytest.mark.parametrize("option", ["--pairs", "--known"])
@pytest.mark.parametrize("damage", ["empty", "archive", "broken archive", "too large"])
def test_a_damaged_list_of_rows_ends_with_a_message(here, capsys, option, damage):
    np.savez(here / "archive.npz", np.arange(100))
    archive, plain = (here / "archive.npz").read_bytes(), (here / "rows.npy").read_bytes()
    large = plain.replace(b"(100,), }" + b" " * 10, b"(1000000000000,), }")
    content = {"empty": b"", "archive": archive, "broken archive": archive[:90], "too large": large}[damage]
    (here / "damaged.npy").write_bytes(content)
    assert main([*COMMAND, option, "damaged.npy"]) == 2
    assert "damaged.npy" in capsys.readouterr().err
    assert not (here / "runs/bridge").exists()


def test_numbers_above_64_bits_are_ids(here, capsys):
    keys = np.array([str(10**24 + i) for i in range(600)])
    large = np.arange(100, dtype=np.uint64) + np.uint64(2**63)
    rows = np.load("rows.npy")
    np.savez("old.npz", old=np.load("old.npy"), ids=keys)
    (here / "ids.txt").write_text("\n".join(keys[rows]) + "\n")
    np.save("large.npy", large)
    index = open_rows("old.npz", "old")
    np.testing.assert_array_equal(read_pairs(BridgeConfig(old="old.npz", pairs="ids.txt"), index), keys[rows])
    found = read_pairs(BridgeConfig(old="old.npz", pairs="large.npy"), index)
    np.testing.assert_array_equal(found, large.astype(str))
    for name in ("ids.txt", "large.npy"):
        assert main([*COMMAND, "--known", name]) == 2
        assert f"{name} holds ids; give the row number of the correct answer" in capsys.readouterr().err


def test_the_plan_needs_no_new_rows(here, capsys):
    assert main(["bridge", "old.npy", "--plan", "12"]) == 0
    assert "Rows to embed next: runs/bridge/plan.txt" in capsys.readouterr().out
    planned = [int(line) for line in (here / "runs/bridge/plan.txt").read_text().split()]
    assert len(set(planned)) == 12
    assert not (here / "runs/bridge/results.json").exists()
    assert main([*COMMAND, "--plan", "12"]) == 0
    planned = [int(line) for line in (here / "runs/bridge/plan.txt").read_text().split()]
    assert not set(planned) & set(np.load("rows.npy").tolist())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bridge"], "no file is given"),
        (["bridge", "old.npy"], "no new rows are given"),
        (["bridge", "old.npy", "new.npy"], "'new' has 100 rows and the index 600"),
        ([*COMMAND, "--goal", "2"], "goal must be a number above 0"),
        ([*COMMAND, "--methods", "rigde"], "did you mean 'ridge'"),
        ([*COMMAND, "--pairs", "new.npy"], "must hold a list of integers or ids"),
        ([*COMMAND, "--pairs", "none.txt"], "cannot be read as pairs"),
        ([*COMMAND, "--pairs", "names.txt", "--pairs-by", "row"], "names.txt holds ids, not row numbers"),
        ([*COMMAND, "--pairs", "negative.npy"], "pair row -5 is outside the index"),
        (["bridge", "none.npy", "new.npy"], "none.npy"),
    ],
)
def test_mistakes_end_with_a_message(here, capsys, words, message):
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("unialign bridge: ")
    assert message in printed.err.replace("\n", " ")
    assert not (here / "runs/bridge").exists()


def test_other_results_are_kept(here, capsys):
    (here / "mine").mkdir()
    (here / "mine/notes.txt").write_text("keep")
    assert main([*COMMAND, "--out", "mine"]) == 2
    assert (here / "mine/notes.txt").read_text() == "keep"


def test_an_input_in_the_results_folder_stays_intact(here, capsys):
    assert main([*COMMAND, "--write-index"]) == 0
    mapped = (here / "runs/bridge/mapped.npy").read_bytes()
    assert main(["bridge", "runs/bridge/mapped.npy", *COMMAND[2:]]) == 2
    assert "runs/bridge/mapped.npy would be replaced in runs/bridge" in capsys.readouterr().err
    assert (here / "runs/bridge/mapped.npy").read_bytes() == mapped
    np.save(here / "runs/bridge/asked.npy", np.load("queries.npy"))
    assert main([*COMMAND[:5], "--queries", "runs/bridge/asked.npy"]) == 0
    assert (here / "runs/bridge/asked.npy").exists()
    assert not (here / "runs/bridge/mapped.npy").exists()  # an earlier mapped index does not belong to the new map


def test_the_pairs_can_be_an_earlier_plan(here, capsys):
    assert main(["bridge", "old.npy", "--plan", "100"]) == 0
    assert "not a random sample" in capsys.readouterr().out
    text = (here / "runs/bridge/plan.txt").read_text()
    command = [*COMMAND[:3], "--pairs", "runs/bridge/plan.txt", "--queries", "queries.npy", "--methods", "identity"]
    assert main(command) == 0
    assert "Note: runs/bridge/plan.txt is a plan." in capsys.readouterr().out
    assert (here / "runs/bridge/plan.txt").read_text() == text
    assert main([*command, "--plan", "5"]) == 2
    assert (here / "runs/bridge/plan.txt").read_text() == text


def test_a_later_plan_keeps_a_complete_bridge(here):
    assert main([*COMMAND, "--methods", "identity"]) == 0
    before = {path.name: path.read_bytes() for path in (here / "runs/bridge").iterdir()}
    assert main(["bridge", "old.npy", "--plan", "5"]) == 0
    after = {path.name: path.read_bytes() for path in (here / "runs/bridge").iterdir()}
    assert len(after.pop("plan.txt").split()) == 5
    assert after == before


def test_a_failed_run_keeps_the_files_of_an_earlier_one(here):
    assert main([*COMMAND, "--methods", "identity"]) == 0
    before = {path.name: path.read_bytes() for path in (here / "runs/bridge").iterdir()}
    assert main([*COMMAND, "--methods", "rigde"]) == 2
    assert {path.name: path.read_bytes() for path in (here / "runs/bridge").iterdir()} == before


def test_numeric_ids_are_not_taken_for_row_numbers(here, capsys):
    keys = np.array([f"{i:03}" for i in range(600)][::-1])
    rows = np.load("rows.npy")
    np.savez("old.npz", old=np.load("old.npy"), ids=keys)
    (here / "ids.txt").write_text("\n".join(keys[rows]) + "\n")
    command = ["bridge", "old.npz", "new.npy", "--pairs", "ids.txt", "--methods", "identity"]
    assert main(command) == 2
    assert "--pairs-by id or --pairs-by row" in capsys.readouterr().err.replace("\n", " ")
    assert main([*command, "--pairs-by", "id"]) == 0
    np.testing.assert_array_equal(Bridge.load(here / "runs/bridge").pairs, rows)
    assert main([*command, "--pairs-by", "row"]) == 0
    np.testing.assert_array_equal(Bridge.load(here / "runs/bridge").pairs, 599 - rows)
