"""Test on the CPU that the checks of `make gpu` pass, and that they can fail."""

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.checks import checks
from benchmarks.gpu.encoder_checks import LORA, lora_error

SLOW = ("compiled", "triton", LORA)


def test_every_check_holds_on_the_cpu():
    here = torch.device("cpu")
    ran = [name for name, check, bound in checks() if not name.startswith(SLOW) and gpu.run(name, check, bound, here)]
    assert ran == [name for name, _, _ in checks() if not name.startswith(SLOW)]


@pytest.mark.slow
def test_the_check_of_the_lora_example_holds_on_the_cpu():
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    assert lora_error(torch.device("cpu")) == 0


def test_a_large_error_and_an_exception_fail(capsys):
    def broken(device: torch.device) -> float:
        raise ValueError("no kernel")

    assert not gpu.run("large", lambda device: 2e-3, 1e-3, torch.device("cpu"))
    assert not gpu.run("nan", lambda device: float("nan"), 1e-3, torch.device("cpu"))
    assert not gpu.run("broken", broken, 1e-3, torch.device("cpu"))
    assert "no kernel" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_without_a_device_the_command_lists_its_checks(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmarks.gpu"])
    assert gpu.main() == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name, _, _ in checks())
