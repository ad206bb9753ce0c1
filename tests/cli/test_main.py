"""Test the commands on the shipped digits."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

import unialign as ua
from unialign import experiments
from unialign.cli import main
from unialign.report import write_report

QUICK = ["--epochs", "2", "--modalities", "fou", "zer", "kar", "--dim", "16", "--head", "linear"]


def check_schema(results):
    assert results["schema"] == 1
    assert {"unialign", "torch", "numpy", "python"} <= set(results["environment"])
    assert {"name", "fingerprint", "items", "modalities"} <= set(results["data"])
    assert {"k", "ties", "pool", "bootstrap", "selection"} <= set(results["protocol"])
    names = results["data"]["modalities"]
    for run in results["runs"]:
        assert {"objective", "seed", "metrics", "directions"} <= set(run)
        assert {"recall@1", "recall@10", "modality_gap", "modality_gap_debiased", "true_pair_cosine"} <= set(
            run["metrics"]
        )
        pairs = {f"{a}->{b}" for a in names for b in names if a != b}
        assert pairs <= set(run["directions"])
        single = [run["directions"][pair]["recall@1"] for pair in pairs]
        assert run["metrics"]["recall@1"] == pytest.approx(np.mean(single))
    for key, metrics in results["summary"].items():
        for metric, record in metrics.items():
            assert record["low"] <= record["mean"] <= record["high"], (key, metric)


def run_python(code):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)


def test_help_needs_neither_torch_nor_numpy():
    done = run_python(
        "import sys\nfrom unialign.cli import main\n"
        "for words in (['--help'], ['--version'], ['train', '--help'], ['demo', '--help'], []):\n"
        "    try: main(words)\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'torch', 'numpy', 'yaml'} & set(sys.modules), 'heavy import'"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: unialign") == 4


def test_compare_then_continue_then_raise(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = [
        "compare",
        "digits",
        "--anchor",
        "kar",
        "--seeds",
        "0",
        "1",
        *QUICK,
        "--resamples",
        "400",
        "--workers",
        "1",
    ]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "InfoNCE warmup" in printed
    assert "[6/6]" in printed
    results = json.loads((tmp_path / "runs/compare/results.json").read_text())
    check_schema(results)
    assert list(results["summary"]) == ["unialign", "infonce", "gram"]
    assert {record["verdict"] for record in results["comparisons"] if "verdict" in record} <= {"win", "tie", "lose"}
    assert {record["baseline"] for record in results["comparisons"]} == {"infonce", "gram"}
    page = (tmp_path / "runs/compare/report.html").read_text("utf-8")
    assert len(page) < 5_000_000
    assert "http://" not in page.replace("http://www.w3.org", "")

    # Repeating the command loads the finished runs without training, and the metrics do not change.
    trained = (tmp_path / "runs/compare/runs/unialign-seed0/log.jsonl").stat().st_mtime_ns
    assert main(command) == 0
    again = json.loads((tmp_path / "runs/compare/results.json").read_text())
    assert again["summary"] == results["summary"]
    assert (tmp_path / "runs/compare/runs/unialign-seed0/log.jsonl").stat().st_mtime_ns == trained

    # Repeating the comparison from its config.yaml with two workers gives the same numbers.
    capsys.readouterr()
    assert main(["compare", "--config", "runs/compare/config.yaml", "--out", "runs/again", "--workers", "2"]) == 0
    moved = json.loads((tmp_path / "runs/again/results.json").read_text())
    for key, metrics in results["summary"].items():
        assert moved["summary"][key]["recall@1"]["mean"] == pytest.approx(metrics["recall@1"]["mean"], abs=0.02)

    assert main([*command, "--lr", "0.002"]) == 2
    assert "another comparison" in capsys.readouterr().err


def test_objectives_without_an_anchor_are_compared_with_those_that_have_one(tmp_path, monkeypatch, capsys):
    """Regression test: `--anchor` was passed to Symile, which has no anchor."""
    monkeypatch.chdir(tmp_path)
    command = ["compare", "digits", "--objectives", "symile", "cua", "--anchor", "kar", "--seeds", "0", *QUICK]
    assert main([*command, "--workers", "1"]) == 0
    assert "Symile, CUA, anchor kar, into" in capsys.readouterr().out
    entries = yaml.safe_load((tmp_path / "runs/compare/config.yaml").read_text())["entries"]
    assert entries["cua"]["train"]["objective_options"] == {"anchor": "kar"}
    assert "anchor" not in entries["symile"]["train"]["objective_options"]

    again = ["compare", "--config", "runs/compare/config.yaml", "--anchor", "fou", "--out", "runs/again"]
    assert main([*again, "--workers", "1"]) == 0
    entries = yaml.safe_load((tmp_path / "runs/again/config.yaml").read_text())["entries"]
    assert entries["cua"]["train"]["objective_options"] == {"anchor": "fou"}
    assert "anchor" not in entries["symile"]["train"]["objective_options"]


@pytest.mark.parametrize("command", ["train", "compare"])
def test_help_names_every_objective(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in ua.losses.names())


@pytest.mark.parametrize("command", ["train", "compare"])
def test_help_describes_the_default_anchor(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("--anchor")]
    assert "default: `all`" in line
    assert command == "train" or "first modality for objectives that require a modality" in line


def test_an_objective_that_needs_an_anchor_takes_a_default_with_a_note(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", "--objective", "modgap", *QUICK]) == 0
    said = capsys.readouterr().out
    assert "note: ModGap needs an anchor; using all pairs (--anchor changes this)" in said
    assert "anchor all, seed 0" in said
    config = yaml.safe_load((tmp_path / "runs/train/config.yaml").read_text())
    assert config["train"]["objective_options"]["anchor"] == "all"
    assert main(["train", "digits", "--objective", "modgap", *QUICK]) == 0, "the same command continues"
    assert main(["train", "digits", "--objective", "gram", *QUICK, "--out", "runs/gram"]) == 0
    assert "GRAM needs an anchor; using fou, the first modality of the data" in capsys.readouterr().out
    assert main(["train", "digits", "--objective", "symile", *QUICK, "--out", "runs/symile"]) == 0
    assert ", no anchor, seed 0" in capsys.readouterr().out


def test_train_then_evaluate(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", "--objective", "infonce", "--anchor", "kar", *QUICK, "--seed", "3"]) == 0
    results = json.loads((tmp_path / "runs/train/results.json").read_text())
    check_schema(results)
    assert results["runs"][0]["seed"] == 3
    assert (tmp_path / "runs/train/report.html").exists()
    settings = yaml.safe_load((tmp_path / "runs/train/config.yaml").read_text())
    assert settings

    assert main(["evaluate", "runs/train/space", "digits"]) == 0
    again = json.loads((tmp_path / "runs/evaluate/results.json").read_text())
    check_schema(again)
    assert again["runs"][0]["metrics"] == results["runs"][0]["metrics"]

    assert main(["evaluate", "--config", "runs/evaluate/config.yaml", "--out", "runs/evaluated-again"]) == 0
    assert json.loads((tmp_path / "runs/evaluated-again/results.json").read_text())["summary"] == again["summary"]
    assert (
        again["objectives"]["space"]["settings"]["objective"] == "infonce"
    )  # the settings of the training run, not the defaults

    assert main(["train", "--config", "runs/train/config.yaml", "--out", "runs/copy"]) == 0
    copy = json.loads((tmp_path / "runs/copy/results.json").read_text())
    assert copy["runs"][0]["metrics"] == results["runs"][0]["metrics"]

    # Regression test: with other settings in the same folder, the command printed the numbers of the old run.
    kept = (tmp_path / "runs/train/results.json").read_text()
    assert main(["train", "digits", "--objective", "unialign", "--anchor", "kar", *QUICK, "--seed", "3"]) == 2
    assert (
        main(
            ["train", "digits", "--objective", "infonce", "--anchor", "kar", *QUICK, "--seed", "3", "--resume", "never"]
        )
        == 2
    )
    assert (tmp_path / "runs/train/results.json").read_text() == kept


def test_repeated_options_add_values(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "--set",
        "objective_options.temperature=0.2",
        "--set",
        "objective_options.pairs=all",
        "--modalities",
        "mor",
    ]
    assert main(["train", "digits", "--objective", "infonce", *QUICK, *words, "--out", "run"]) == 0
    train = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]
    assert train["head"] == "linear"
    assert train["objective_options"] == {"temperature": 0.2, "pairs": "all"}
    assert train["modalities"] == ["fou", "zer", "kar", "mor"]


def test_train_on_a_store_with_missing_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(60, 6)).astype(np.float32)
    columns = {name: shared @ draw.normal(size=(6, dim)).astype(np.float32) for name, dim in (("rna", 9), ("atac", 5))}
    present = {"atac": draw.random(60) < 0.7}
    columns["atac"][~present["atac"]] = np.nan
    split = np.repeat(["train", "val", "test"], [40, 5, 15])
    ua.data.EmbeddingStore.write(tmp_path / "cells", columns, present=present, split=split)
    assert main(["train", "cells", "--epochs", "3", "--batch-size", "16", "--dim", "8"]) == 0
    results = json.loads((tmp_path / "runs/train/results.json").read_text())
    assert results["data"]["modalities"] == ["rna", "atac"]
    assert "label_map" not in results["runs"][0]["metrics"]
    assert results["protocol"]["name"].startswith("cross-modal retrieval of unseen items")

    # Regression test: the file had no masks, so `diagnose` warned of broken rows and `repair` raised an error.
    written = load_file("runs/train/embeddings.safetensors")
    assert (written["present.atac"] == present["atac"][45:]).all()
    assert "present.rna" not in written


def test_embeddings_of_a_run_can_be_diagnosed_and_repaired(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(200, 6)).astype(np.float32)
    columns = {name: shared @ draw.normal(size=(6, 7)).astype(np.float32) for name in ("rna", "atac")}
    split = np.repeat(["train", "test"], [80, 120])
    options = {"present": {"atac": draw.random(200) < 0.7}, "ids": np.arange(200) // 2, "labels": np.arange(200) % 3}
    ua.data.EmbeddingStore.write(tmp_path / "cells", columns, split=split, **options)
    assert main(["train", "cells", "--epochs", "1", "--dim", "4", "--head", "linear"]) == 0
    capsys.readouterr()
    embeddings = "runs/train/embeddings.safetensors"
    assert set(load_file(embeddings)) == {"rna", "atac", "present.atac", "ids", "labels"}
    assert main(["diagnose", embeddings, "--resamples", "100"]) == 0
    printed = capsys.readouterr().out
    assert "Rows marked as missing were excluded" in printed
    assert "only zeros" not in printed
    assert main(["repair", embeddings]) == 0


def test_the_printed_command_repeats_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    np.savez("d.npz", a=draw.normal(size=(40, 5)), b=draw.normal(size=(40, 5)), split=np.repeat(["train", "test"], 20))
    assert main(["train", "d.npz", "--epochs", "1", "--dim", "4", "--head", "linear", "--out", "runs/my run"]) == 0
    for run in ("runs/my run", "runs/evaluate", "runs/diagnose"):
        if run == "runs/evaluate":
            assert main(["evaluate", "runs/my run/space", "d.npz", "--resamples", "100"]) == 0
        if run == "runs/diagnose":
            assert main(["diagnose", "d.npz", "--resamples", "100"]) == 0
        program, *words = shlex.split(json.loads((tmp_path / run / "results.json").read_text())["reproduce"])
        assert program == "unialign"
        assert words[1:] == ["--config", f"{run}/config.yaml", "--out", f"{run}-again"]
        assert main(words) == 0


def test_an_expected_error_is_one_readable_paragraph(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("alone.npy", np.random.default_rng(0).normal(size=(40, 4)))
    cases = [
        (["train", "nothing-here"], "neither a data set"),
        (["train"], "pass the data"),
        (["compare"], "pass the data"),
        (["train", "digits", "--objective", "clip"], "clip"),
        (["train", "digits", "--anchor", "text"], "'text'"),
        # Regression test: the message named `anchor=`, which is not a command-line option.
        (["train", "digits", "--objective", "gram", "--anchor", "all"], "set --anchor to one of fou, fac, kar, pix"),
        (["train", "digits", "--objective", "InfoNCE"], "did you mean 'infonce'?"),
        (["train", "digits", "--modalities", "fou", "sound"], "sound"),
        (["train", "digits", "--set", "learning_rate=1"], "learning_rate"),
        (["train", "digits", "--set", "lr"], "KEY=VALUE"),
        (["train", "digits", "--lr", "-1"], "lr"),
        (["train", "digits", "--resume", "required"], "no complete checkpoint"),
        (["train", "--config", "missing.yaml"], "missing.yaml"),
        (["evaluate"], "pass the space"),
        (["compare", "digits", "--seeds", "1", "1"], "distinct"),
        (["compare", "digits", "--workers", "0"], "--workers"),
        (["compare", "digits", "--resamples", "20"], "resamples"),
        (["evaluate", "nowhere", "digits"], "nowhere"),
        (
            ["train", "alone.npy"],
            "has only the modality 'alone', but training needs at least two modalities; add a file",
        ),
    ]
    for words, message in cases:
        assert main(words) == 2, words
        printed = capsys.readouterr().err
        assert message in printed, words
        assert "Traceback" not in printed
        assert printed.strip().count("\n") <= 2


def test_a_broken_configuration_names_its_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cases = [
        ("train", "data: emoji\ntrain: {}\n", "`data` and `train`"),
        ("train", "data: {name: digits, fingerprint: x}\ntrain: {lr: fast}\n", "lr"),
        ("train", "[1, 2]", "mapping"),
        ("train", "a: [", "YAML"),
        ("compare", "data: digits\nentries: []\n", "entries"),
        ("compare", "data: digits\nseeds: abc\nentries: {a: {train: {}}}\n", "seeds"),
        ("compare", "data: digits\nseeds: [a]\nentries: {a: {train: {}}}\n", "seeds"),
        ("compare", "data: digits\nresamples: many\nentries: {a: {train: {}}}\n", "resamples"),
        ("compare", "data: digits\nentries: {a: {train: {dropout: high}}}\n", "dropout"),
        ("compare", "data: digits\nentries: {a: {train: [1]}}\n", "train"),
        ("compare", "data: digits\nentries: {../a: {train: {}}}\n", "file name"),
        ("compare", "data: digits\nentries: {a: {train: {}}}\nepochs: 3\n", "epochs"),
        ("evaluate", "space: 3\ncolor: red\n", "color"),
    ]
    for command, text, message in cases:
        (tmp_path / "broken.yaml").write_text(text)
        assert main([command, "--config", "broken.yaml"]) == 2, text
        printed = capsys.readouterr().err
        assert message in printed, text
        assert "Traceback" not in printed
    assert not (tmp_path / "runs").exists()


def test_a_rejected_start_does_not_block_its_folder(tmp_path, monkeypatch):
    """Regression test: a failed command left files behind, so the corrected command rejected the folder."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", *QUICK, "--resume", "required"]) == 2
    assert main(["train", "digits", *QUICK]) == 0


def test_damaged_thumbnails_do_not_stop_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    columns = {name: draw.normal(size=(30, 4)).astype(np.float32) for name in ("a", "b")}
    split = np.repeat(["train", "test"], [20, 10])
    ua.data.EmbeddingStore.write(tmp_path / "st", columns, split=split, assets={"thumbnails.zip": b"no zip"})
    with pytest.warns(UserWarning, match="no images"):
        assert main(["train", "st", "--epochs", "1", "--dim", "4"]) == 0
    assert (tmp_path / "runs/train/report.html").exists()


def test_a_folder_with_other_files_is_not_changed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/compare").mkdir(parents=True)
    (tmp_path / "runs/compare/thesis.tex").write_text("mine")
    assert main(["compare", "digits", *QUICK, "--seeds", "0"]) == 2
    assert (tmp_path / "runs/compare/thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("epochs", [2, pytest.param(None, marks=pytest.mark.slow)])
def test_demo_with_one_seed(tmp_path, monkeypatch, capsys, epochs):
    monkeypatch.chdir(tmp_path)
    demo = ["demo", "--seeds", "0"]
    if epochs is not None:
        demo += ["--workers", "1"]
        whole = experiments.recipe("emoji")
        # Linear heads need no eigendecomposition of kernels.
        quick = {"head": "linear", "dim": 64}
        entries = {
            key: replace(entry, train=entry.train.override({"epochs": min(epochs, entry.train.epochs), **quick}))
            for key, entry in whole.entries.items()
            if key not in ("kernel_gcca", "ridge", "unialign_preset")
        }
        monkeypatch.setattr(experiments, "recipe", lambda name: replace(whole, entries=entries, resamples=600))
    assert main(demo) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "runs/demo/results.json").read_text())
    check_schema(results)
    assert results["data"]["name"] == "emoji"
    assert results["data"]["synthetic"] == ["speech"]
    for word in ("R@1", "joint R@1", "label mAP", "V-measure", "debiased gap", "InfoNCE warmup"):
        assert word in printed, word
    page = (tmp_path / "runs/demo/report.html").read_text("utf-8")
    assert "data:image/webp" in page
    assert len(page) < 5_000_000
    section = page[page.index('<section id="generated"') : page.index('<section id="methods"')]
    assert section.count("<article") == 8
    assert section.count("data:image/png") == 8 * 3
    assert section.count("data:image/webp") == 8 * (1 + 3)
    drawn = json.loads((tmp_path / "runs/demo/images/images.json").read_text())
    store = ua.data.load_dataset("emoji")
    assert {store.split[card["row"]] for card in drawn["cards"]} == {store.split[store.rows("test")[0]]}
    assert drawn["compared_by"] == "pixels"
    generated = {key: (tmp_path / f"runs/demo/images/0-{key}.png").read_bytes() for key in drawn["labels"]}
    assert set(generated) == {"unialign", "infonce", "gram"}
    assert len(set(generated.values())) == 3, "each objective's space makes its own image"
    before = {path.name: path.read_bytes() for path in (tmp_path / "runs/demo/images").glob("*.png")}
    assert main(demo) == 0
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "runs/demo/images").glob("*.png")}
    (tmp_path / "runs/demo/images/images.json").write_text('{"cards": 3}')
    with pytest.raises(ua.errors.DataError, match="images is damaged"):
        write_report(tmp_path / "runs/demo")


def test_the_error_about_another_run_lists_all_differences(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = ["train", "digits", *QUICK, "--anchor", "kar"]
    assert main(run) == 0
    capsys.readouterr()
    assert main(run) == 0
    assert "the run in runs/train is already finished; nothing to train" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "runs/train/space")
    assert main(run) == 0
    assert "continuing from step-" in capsys.readouterr().out
    assert main([*run, "--lr", "0.5", "--seed", "3"]) == 2
    printed = capsys.readouterr()
    assert "continuing" not in printed.out
    assert "made with lr=0.001, seed=0; this run has lr=0.5, seed=3" in printed.err
    assert "choose another --out" in printed.err
    assert main([*run, "--resume", "never"]) == 2
    assert "Continue it with --resume auto, or choose another --out" in capsys.readouterr().err
    assert main(["evaluate", "digits", "runs/train/space"]) == 2
    assert "as in `unialign evaluate runs/train/space digits`" in capsys.readouterr().err
    evaluate = ["evaluate", "runs/train/space", "digits", "--resamples", "100"]
    assert main(evaluate) == 0
    assert re.search(r"digits, test split, [0-9,]+ of [0-9,]+ items: fou, zer, kar", capsys.readouterr().out)
    assert main([*evaluate, "--split", "val"]) == 2
    assert (
        "holds another evaluation: split is 'test' in the folder, but 'val' was given; choose"
        in capsys.readouterr().err
    )
    comparison = tmp_path / "runs/compare/config.yaml"
    comparison.parent.mkdir()
    words = ["compare", "digits", *QUICK, "--objectives", "infonce", "--seeds", "0"]
    monkeypatch.setattr(experiments._compare, "run_jobs", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(words) == 130
    assert main([*words, "--lr", "0.5"]) == 2
    assert (
        "another comparison: entries.infonce.train.lr is 0.001 in the folder, but 0.5 was given"
        in capsys.readouterr().err
    )


def test_evaluate_measures_all_items_of_files_without_a_split(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    arrays = {name: draw.normal(size=(40, 6)).astype(np.float32) for name in ("image", "text")}
    split = np.repeat(["train", "val", "test"], [20, 8, 12])
    np.savez("train.npz", **arrays, split=split)
    np.savez("held-out.npz", **arrays)
    np.savez("video.npz", **arrays, video=np.zeros((40, 2, 3), np.float32))
    assert main(["train", "train.npz", "--epochs", "1", "--dim", "4"]) == 0
    evaluate = ["evaluate", "runs/train/space"]
    for words, line in {
        ("train.npz", "--out", "a"): "12 of 40 items",
        ("held-out.npz", "--out", "b"): "all 40 items are evaluated",
        ("b/data", "--out", "c"): "all 40 items are evaluated, including training items",
    }.items():
        assert main([*evaluate, *words, "--resamples", "100"]) == 0
        printed = capsys.readouterr()
        assert line in printed.out
        assert "random" not in printed.err
    assert len(json.loads((tmp_path / "b/items.json").read_text())["rows"]) == 40
    page = (tmp_path / "b/report.html").read_text()
    assert "<title>space on all items of held-out</title>" in page
    assert page.count("including training items if the space was trained on them") == 3
    assert "unseen" not in page
    assert main([*evaluate, "held-out.npz", "--split", "val", "--out", "d"]) == 2
    assert "split of d/data has 0 items; at least 2 are needed" in capsys.readouterr().err
    assert main([*evaluate, "held-out.npz", "--sample", "15", "--resamples", "100", "--out", "b"]) == 2
    assert "--out" in capsys.readouterr().err
    assert main([*evaluate, "held-out.npz", "--sample", "15", "--resamples", "100", "--out", "s"]) == 0
    assert "15 random queries among 40 items" in capsys.readouterr().out
    results = json.loads((tmp_path / "s/results.json").read_text())
    assert (results["protocol"]["queries"], results["protocol"]["pool"]) == (15, 40)
    assert results["runs"][0]["directions"]["image->text"]["chance_recall@1"] == pytest.approx(1 / 40)
    assert "measured on a random sample of 15 of 40 items" in (tmp_path / "s/report.html").read_text()
    assert not (tmp_path / "s/items.json").exists(), "examples would rank the sample only"
    assert load_file(tmp_path / "s/embeddings.safetensors")["image"].shape == (15, 4)
    with pytest.warns(UserWarning, match=r"video.npz: video \(<f4 of shape \(40, 2, 3\): perhaps|2 vectors per item"):
        assert main([*evaluate, "video.npz", "--resamples", "100", "--out", "e"]) == 0
