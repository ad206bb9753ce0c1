"""Test that only process 0 of a job embeds media, and that the result is that of a single process."""

import json
import socket
from pathlib import Path

import pytest
import torch

from embed_cases import content, small_items
from processes import start_command
from unialign.cli import main
from unialign.space import Space

OPTIONS = ["--encode", "image=builtin:color", "--encode", "text=builtin:chars", "--workers", "0", "--device", "cpu"]
SETTINGS = ["--epochs", "2", "--batch-size", "8", "--dim", "4", "--hidden", "8", "--split", "test", "--out"]


def test_process_0_embeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_items(tmp_path / "media", 60).save(tmp_path / "table")
    words = ["train", "table", *OPTIONS, *SETTINGS]
    assert main([*words, "alone"]) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    outputs = [tmp_path / f"{rank}.txt" for rank in range(2)]
    processes = [
        start_command(
            [*words, "together"], shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, outputs[rank], tmp_path
        )
        for rank in range(2)
    ]
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0], [output.read_text() for output in outputs]
    assert "embedding image with builtin:color" in outputs[0].read_text()
    assert "embedding" not in outputs[1].read_text()
    assert content(Path("together/store")) == content(Path("alone/store"))
    one, other = (Space.from_pretrained(f"{name}/space") for name in ("alone", "together"))
    assert one.encoders == other.encoders
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, atol=1e-5, rtol=1e-4)
    assert json.loads(Path("together/results.json").read_text())["data"]["test_items"] > 1
