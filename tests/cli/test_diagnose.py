"""Test `unialign diagnose`."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from unialign import diagnostics
from unialign.cli import main


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def here(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((200, 16))
    good = {name: unit(latent + 0.4 * rng.standard_normal(latent.shape)) for name in ("image", "text", "sound<b>")}
    np.savez(tmp_path / "good.npz", **good)
    np.savez(tmp_path / "bad.npz", **(good | {"text": good["text"][rng.permutation(200)]}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


QUICK = ["--resamples", "100"]


def test_a_diagnosis_writes_a_results_folder(here, capsys):
    assert main(["diagnose", "bad.npz", *QUICK]) == 0  # The exit status is 0 even if there are findings.
    printed = capsys.readouterr().out
    folder = here / "runs/diagnose"
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "log.txt", "report.html", "results.json"]
    assert printed.startswith("1 problem in 200 items in 3 modalities: rows that are not paired (text).")
    assert (folder / "log.txt").read_text() in printed
    assert "runs/diagnose/report.html" in printed

    results = json.loads((folder / "results.json").read_text())
    assert results["schema"] == 1
    assert {"name", "fingerprint", "items", "modalities"} <= set(results["data"])
    ((run,),) = (results["runs"],)
    assert (run["objective"], run["seed"]) == ("given", 0)
    names = ("recall@1", "recall@10", "modality_gap", "modality_gap_debiased", "true_pair_cosine")
    assert set(names) <= set(run["metrics"])
    assert len(run["directions"]) == 6
    for name, value in results["summary"]["given"].items():
        assert value["low"] <= value["mean"] <= value["high"], name
        assert value["mean"] == run["metrics"][name]
        assert name in results["metrics"]
    (finding,) = [f for f in results["findings"] if f["severity"] == "problem"]
    assert (finding["code"], finding["modalities"]) == ("not_paired", ["text"])
    assert results["issue_summary"] in printed
    assert results["numbers"]["pairs"]["image-text"]["cka_p"] > 0.01


def test_proposed_ids_are_written_and_read_again(here, capsys):
    rng = np.random.default_rng(0)
    caption, which = unit(rng.standard_normal((30, 16))), rng.integers(0, 30, 200)
    np.savez("mine.npz", image=unit(caption[which] + 0.1 * rng.standard_normal((200, 16))), text=caption[which])
    assert main(["diagnose", "mine.npz", *QUICK]) == 0
    assert "Proposed ids: runs/diagnose/ids.npy" in capsys.readouterr().out
    assert main(["diagnose", "mine.npz", "runs/diagnose/ids.npy", "--out", "again", *QUICK]) == 0
    assert "No problems were found" in capsys.readouterr().out
    assert not (here / "again/ids.npy").exists()
    assert main(["diagnose", "good.npz", *QUICK]) == 0
    assert not (here / "runs/diagnose/ids.npy").exists()


def test_sources_inside_the_results_folder_are_refused_and_kept(here, capsys):
    (here / "dg").mkdir()
    np.save(here / "dg/ids.npy", np.arange(200))
    before = (here / "dg/ids.npy").read_bytes()
    for source in ("dg/ids.npy", "ids=dg/ids.npy", "dg/*.npy"):
        assert main(["diagnose", "good.npz", source, *QUICK, "--out", "dg"]) == 2
        assert "is inside dg, whose files are replaced; choose another --out" in capsys.readouterr().err
    assert main(["diagnose", "good.npz", "--against", "dg/ids.npy", *QUICK, "--out", "dg"]) == 2
    assert [path.name for path in (here / "dg").iterdir()] == ["ids.npy"]
    assert (here / "dg/ids.npy").read_bytes() == before


def test_the_python_call_gives_the_same_results(here):
    assert main(["diagnose", "good.npz", *QUICK, "--seed", "3"]) == 0
    results = json.loads((here / "runs/diagnose/results.json").read_text())
    found = diagnostics.diagnose("good.npz", resamples=100, seed=3)
    assert results["issue_summary"] == found.issue_summary
    assert results["answer"] == found.answer == "No problems were found in these embeddings: 200 items in 3 modalities."


def test_an_earlier_diagnosis_is_replaced_and_other_results_are_not(here, capsys):
    assert main(["diagnose", "good.npz", *QUICK]) == 0
    first = json.loads((here / "runs/diagnose/results.json").read_text())
    assert main(["diagnose", "good.npz", *QUICK]) == 0
    second = json.loads((here / "runs/diagnose/results.json").read_text())
    assert first["numbers"] == second["numbers"]

    # If the contents of the file have changed, the same command replaces the diagnosis.
    (here / "good.npz").write_bytes((here / "bad.npz").read_bytes())
    assert main(["diagnose", "good.npz", *QUICK]) == 0
    assert json.loads((here / "runs/diagnose/results.json").read_text())["issue_summary"] != first["issue_summary"]

    assert main(["diagnose", "bad.npz", "--modalities", "text", *QUICK]) == 0
    assert yaml.safe_load((here / "runs/diagnose/config.yaml").read_text())["files"] == ["bad.npz"]
    assert "is the only modality" in (here / "runs/diagnose/log.txt").read_text()
    assert list(json.loads((here / "runs/diagnose/results.json").read_text())["data"]["modalities"]) == ["text"]

    capsys.readouterr()
    (here / "mine").mkdir()
    (here / "mine/config.yaml").write_text("entries: {}\n")
    assert main(["diagnose", "bad.npz", *QUICK, "--out", "mine"]) == 2
    assert "another kind of result" in capsys.readouterr().err
    assert [path.name for path in (here / "mine").iterdir()] == ["config.yaml"]


def test_the_written_config_reproduces_the_numbers(here):
    assert main(["diagnose", "words=good.npz", "--modalities", "text", *QUICK]) == 2
    assert main(["diagnose", "good.npz", "--modalities", "text", "image", "--sample", "90", *QUICK]) == 0
    written = yaml.safe_load((here / "runs/diagnose/config.yaml").read_text())
    assert written == {
        "files": ["good.npz"], "against": None, "modalities": ["text", "image"], "id": None, "sample": 90,
        "batch_size": 256, "resamples": 100, "seed": 0,
    }  # fmt: skip
    assert main(["diagnose", "--config", "runs/diagnose/config.yaml", "--out", "again"]) == 0
    first, second = (json.loads((here / f / "results.json").read_text()) for f in ("runs/diagnose", "again"))
    assert first["numbers"] == second["numbers"]
    assert first["numbers"]["sampled"] == 90


def test_errors_are_one_readable_paragraph_and_leave_no_folder(here, capsys):
    np.save("short.npy", np.ones((3, 16), np.float32))
    np.savez("objects.npz", x=np.array([None, 1], dtype=object))
    (here / "odd.yaml").write_text("color: red\n")
    (here / "flat.yaml").write_text("files: good.npz\n")
    (here / "torn.yaml").write_text("files: [\n")
    (here / "date.yaml").write_text("files: 2020-13-45\n")
    (here / "deep.yaml").write_text("[" * 5000)
    (here / "tag.yaml").write_text("files: !!timestamp x\n")
    for words, message in [
        ([], "pass the files of embeddings"),
        (["missing.npz"], "there is no file missing.npz"),
        (["good.npz", "short.npy"], "has 3 rows"),
        (["objects.npz"], "pickled objects"),
        (["--config", "odd.yaml"], "unknown diagnosis setting 'color'"),
        (["--config", "flat.yaml"], "files must be a list such as ['good.npz']"),
        (["--config", "torn.yaml"], "cannot read torn.yaml as YAML"),
        (["--config", "date.yaml"], "cannot read date.yaml as YAML"),
        (["--config", "deep.yaml"], "cannot read deep.yaml as YAML"),
        (["--config", "tag.yaml"], "cannot read tag.yaml as YAML: a value does not fit its tag"),
        (["good.npz", "--sample", "2"], "sample must be"),
    ]:
        assert main(["diagnose", *words]) == 2
        printed = capsys.readouterr()
        assert message in printed.err
        assert printed.err.startswith("unialign diagnose: ")
        assert printed.err.count("\n") == 1
        assert not (here / "runs/diagnose").exists()


def test_an_existing_folder_is_kept_after_an_error(here):
    """Regression test: a failed diagnosis removed an existing empty folder."""
    (here / "mine").mkdir()
    assert main(["diagnose", "missing.npz", "--out", "mine"]) == 2
    assert (here / "mine").is_dir()


def test_the_exit_status_depends_on_findings_only_with_fail_on(here):
    good = dict(np.load("good.npz"))
    good["text"][3] = 0.0
    np.savez("warned.npz", **good)
    for name, statuses in {"good": (0, 0, 0), "warned": (0, 0, 1), "bad": (0, 1, 1)}.items():
        command = ["diagnose", f"{name}.npz", *QUICK]
        found = main(command), main([*command, "--fail-on", "problem"]), main([*command, "--fail-on", "warning"])
        assert found == statuses, name


def test_the_page_is_self_contained_and_escapes_names(here):
    assert main(["diagnose", "bad.npz", *QUICK]) == 0
    page = (here / "runs/diagnose/report.html").read_text("utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "<script" not in page
    assert "sound<b>" not in page
    assert "sound&lt;b&gt;" in page
    assert page.count('class="problem"') == 1
    assert "prefers-color-scheme: dark" in page
    for section in ("answer", "plots", "numbers", "methods"):
        assert f'id="{section}"' in page
    assert len(page) < 1_000_000


def test_the_page_is_valid_for_degenerate_data(here):
    good = dict(np.load("good.npz"))
    for case in (
        {"text": good["text"]},
        good | {"text": good["text"][:, :9]},
        good | {"text": np.full_like(good["text"], np.nan)},
        {name: z[:2] for name, z in good.items()},
    ):
        np.savez("case.npz", **case)
        assert main(["diagnose", "case.npz", *QUICK]) == 0
        page = (here / "runs/diagnose/report.html").read_text("utf-8")
        shown = re.findall(r">([^<>]*)<", page.split("</style>")[1])
        assert not {"nan", "inf", "None", "NaN"} & {text.strip() for text in shown}


def test_an_interrupted_diagnosis_leaves_no_folder(here):
    code = (
        "import sys, time\n"
        "from unialign.diagnostics import _diagnose\n"
        "def slow(*a, **k):\n"
        "    print('measuring', flush=True); time.sleep(60)\n"
        "_diagnose.measure = slow\n"
        "from unialign.cli import main\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = {
        number: subprocess.Popen(
            [sys.executable, "-c", f"{code}sys.exit(main(['diagnose', 'good.npz', '--out', 'out{int(number)}']))\n"],
            stdout=subprocess.PIPE, env=environment,
        )
        for number in (signal.SIGINT, signal.SIGTERM)
    }  # fmt: skip
    for number, run in runs.items():
        assert run.stdout is not None
        assert run.stdout.readline() == b"measuring\n"
        time.sleep(0.1)
        run.send_signal(number)
        assert run.wait(timeout=30) == 128 + number
        assert not (here / f"out{int(number)}").exists()
