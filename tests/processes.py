"""Provide a pool of four processes in gloo groups of two, three and four for tests, and run commands in processes."""

import multiprocessing
import os
import pickle
import site
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
    """Return a fork server that has imported torch, so that children start fast with a clean autograd engine."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["torch", "torch.distributed", "torch._dynamo", "unialign.cli._train"])
    return made


def start_command(words: list[str], environment: dict[str, str], output: Path, folder: Path | None = None) -> Any:
    process = context().Process(target=_run_command, args=(words, environment, str(output), folder))
    process.start()
    return process


def run_command(words: list[str], folder: Path, environment: dict[str, str] | None = None) -> tuple[int, str]:
    with tempfile.NamedTemporaryFile("r") as output:
        process = start_command(words, environment or {}, Path(output.name), folder)
        process.join(200)
        process.kill()
        return process.exitcode, output.read()


def _run_command(words: list[str], environment: dict[str, str], output: str, folder: Path | None) -> None:
    os.environ.update(environment)
    for path in filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)):
        site.addsitedir(path)
    if folder is not None:
        os.chdir(folder)
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
        # Use pickle, since multiprocessing would move every tensor into a separate block of shared memory.
        job = pickle.dumps((function, processes, arguments))
        for pipe in self.pipes[:processes]:
            pipe.send_bytes(job)
        answers = [pickle.loads(pipe.recv_bytes()) for pipe in self.pipes[:processes]]
        failures = [f"process {rank}:\n{answer}" for rank, (kind, answer) in enumerate(answers) if kind == "failed"]
        assert not failures, "\n".join(failures)
        return [answer for _, answer in answers]

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send_bytes(pickle.dumps(None))
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
    while (job := pickle.loads(pipe.recv_bytes())) is not None:
        function, processes, arguments = job
        try:
            answer = pickle.dumps(("done", function(rank, _groups.get(processes, "auto"), *arguments)))
        except BaseException:
            answer = pickle.dumps(("failed", traceback.format_exc()))
        pipe.send_bytes(answer)
    dist.destroy_process_group()
