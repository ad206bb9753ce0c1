"""Run the scripts in `examples/`."""

import math
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run_example(name, monkeypatch, folder):
    monkeypatch.chdir(folder)
    return runpy.run_path(str(EXAMPLES / name))["main"]


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


def test_every_example_is_run():
    tested = Path(__file__).read_text("utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in tested] == []
