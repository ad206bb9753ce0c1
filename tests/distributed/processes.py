"""Processes of tests: a pool of four in one gloo group, and commands as torchrun starts them.

The first two or three processes of the pool are smaller groups.
"""

import multiprocessing
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

WORLD = 4
_groups: dict[int, Any] = {}


def context() -> Any:
    """A fork server that has imported torch once: its children start at once, and with a clean autograd engine."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["torch", "torch.distributed", "torch._dynamo", "unialign.cli._train"])
    return made


def start_command(words: list[str], environment: dict[str, str], output: Path) -> Any:
    """A process that runs `unialign` with these words, as in a shell with these variables, into a file."""
    process = context().Process(target=_run_command, args=(words, environment, str(output)), daemon=True)
    process.start()
    return process


def _run_command(words: list[str], environment: dict[str, str], output: str) -> None:
    os.environ.update(environment)
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    from unialign.cli import main

    sys.exit(main(words))


class Pool:
    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.pipes: list[Connection] = []
        self.processes: list[Any] = []
        for rank in range(WORLD):
            here, there = context().Pipe()
            process = context().Process(target=_serve, args=(rank, f"{self.folder.name}/meet", there), daemon=True)
            process.start()
            self.pipes.append(here)
            self.processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any, processes: int = WORLD) -> list[Any]:
        """The results of `function(rank, group, *arguments)` on each of the first processes."""
        for pipe in self.pipes[:processes]:
            pipe.send((function, processes, arguments))
        answers = [pipe.recv() for pipe in self.pipes[:processes]]
        failures = [f"process {rank}:\n{answer}" for rank, (kind, answer) in enumerate(answers) if kind == "failed"]
        assert not failures, "\n".join(failures)
        return [answer for _, answer in answers]

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(10)
            process.kill()
        self.folder.cleanup()


def _serve(rank: int, meet: str, pipe: Connection) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meet}", rank=rank, world_size=WORLD, timeout=timedelta(seconds=20)
    )
    for processes in (2, 3):
        _groups[processes] = dist.new_group(list(range(processes)))
    while (job := pipe.recv()) is not None:
        function, processes, arguments = job
        try:
            pipe.send(("done", function(rank, _groups.get(processes, "auto"), *arguments)))
        except BaseException:
            pipe.send(("failed", traceback.format_exc()))
    dist.destroy_process_group()
