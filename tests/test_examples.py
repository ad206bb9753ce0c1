"""Run the scripts in `examples/`."""

import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from media_train_cases import media_items

EXAMPLES = Path(__file__).parent.parent / "examples"


def run_example(name, monkeypatch, folder):
    return names_of_example(name, monkeypatch, folder)["main"]


def names_of_example(name, monkeypatch, folder):
    monkeypatch.chdir(folder)
    return runpy.run_path(str(EXAMPLES / name))


@pytest.mark.slow
def test_lightning_training(tmp_path, monkeypatch, capsys):
    pytest.importorskip("lightning")
    run_example("lightning_training.py", monkeypatch, tmp_path)()
    assert "val/loss" in capsys.readouterr().out


def test_transformers_training(tmp_path, monkeypatch, capsys):
    pytest.importorskip("transformers")
    run_example("transformers_training.py", monkeypatch, tmp_path)()
    assert math.isfinite(float(capsys.readouterr().out.split()[-1]))


def test_tracked_loop(tmp_path, monkeypatch):
    class Run:
        steps = ()

        def log(self, values, step):
            assert {"loss", "terms/contrast/image-sensor"} <= set(values)
            self.steps += (step,)

    run = Run()
    run_example("tracked_loop.py", monkeypatch, tmp_path)(run)
    assert run.steps == tuple(range(10))


@pytest.mark.slow
def test_lora_clip_clap(tmp_path, monkeypatch, capsys):
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    words = ["--tiny", "--epochs", "5", "--batch-size", "64", "--lora-lr", "1e-3"]
    found = run_example("lora_clip_clap.py", monkeypatch, tmp_path)(words)
    assert found.interval("recall@1").low > 2 * found.chance["recall@1"]
    printed = capsys.readouterr().out
    assert "image: transformers:clip, stored as adapter" in printed
    assert "text: transformers:clip, stored as reference" in printed


def test_wearable_sensors(tmp_path, monkeypatch, capsys):
    example = names_of_example("wearable_sensors.py", monkeypatch, tmp_path)
    found = example["main"](["--epochs", "6"])
    assert found.interval("label_map").low > 2 / len(example["ACTIVITIES"])
    assert found.directions["text->motion"]["recall@10"] > 3 * 10 / 240
    assert "nearest activity" in capsys.readouterr().out


@pytest.mark.slow
def test_multi_gpu_on_two_processes(tmp_path):
    media_items(tmp_path / "media", 60).save(tmp_path / "items")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words += [str(EXAMPLES / "multi_gpu" / "train.py"), "--data", "items", "--out", "run", "--epochs", "2"]
    words += ["--encode", "image=builtin:conv?size=16", "--encode", "sound=builtin:logmel", "--tune", "image=all"]
    words += ["--batch-size", "16", "--micro-batch-size", "4", "--workers", "0"]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^2 processes, R@1 0\.\d+ \[", done.stdout, re.MULTILINE)


def test_slurm_script_starts_the_example(tmp_path, monkeypatch):
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n', "utf-8")
    srun.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = EXAMPLES / "multi_gpu" / "job.sbatch"
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()
    place = words.index("examples/multi_gpu/train.py")
    assert words[place - 1] == "python"
    parsed = names_of_example("multi_gpu/train.py", monkeypatch, tmp_path)["parsed"]
    options = parsed(words[place + 1 :])
    assert (options.tune, options.batch_size) == (["image=lora", "text=lora"], 4096)


def test_every_example_is_run():
    # Ray Serve is in the environment of `make test-integrations`.
    elsewhere = Path(__file__).parent / "integrations" / "test_ray_serve.py"
    assert "ray_serve.deployment" in elsewhere.read_text("utf-8")
    tested = Path(__file__).read_text("utf-8") + '"ray_serve.py"'
    scripts = [path for path in EXAMPLES.rglob("*.py") if "plugin" not in path.parts]
    assert [path.name for path in scripts if f'"{path.name}"' not in tested] == []
