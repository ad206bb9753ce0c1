"""Test the start of a job from its environment variables, and its end after a process fails or is killed."""

import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from processes import context
from unialign import distributed
from unialign.distributed._environment import ProcessInfo, first_host, read_process_info
from unialign.errors import ConfigError

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_NODELIST": "node[03-07,09]",
    "SLURM_JOB_ID": "123456",
}


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node7", "node7"),
        ("node1,node2", "node1"),
        ("node[03-07,09]", "node03"),
        ("node[9,11-12],other[1-2]", "node9"),
        ("gpu[001-004]-ib", "gpu001-ib"),
        ("gpu[001-004]-ib,gpu7", "gpu001-ib"),
        ("rack[2-3]n[5-8]", "rack2n5"),
        ("a-b-c.example.org", "a-b-c.example.org"),
    ],
)
def test_first_host(hosts: str, first: str) -> None:
    assert first_host(hosts) == first


def test_torchrun_and_slurm() -> None:
    assert read_process_info(TORCHRUN) == ProcessInfo(1, 2, 1, "host", 29500)
    assert read_process_info(SLURM) == ProcessInfo(5, 8, 1, "node03", 15000 + 123456 % 15000)
    assert read_process_info(SLURM | {"SLURM_STEP_NODELIST": "node05"}) == ProcessInfo(5, 8, 1, "node05", 18456)
    assert read_process_info(SLURM | TORCHRUN) == ProcessInfo(1, 2, 1, "host", 29500)
    assert read_process_info(SLURM | {"MASTER_ADDR": "h", "MASTER_PORT": "7"}) == ProcessInfo(5, 8, 1, "h", 7)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"},
        SLURM | {"SLURM_NTASKS": "1"},
        SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
    ],
    ids=["nothing", "torchrun of one", "salloc's shell", "one task", "the script of a batch job"],
)
def test_a_single_process(environment: dict[str, str]) -> None:
    assert read_process_info(environment) is None


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"RANK": "0"}, "has RANK of the variables RANK, WORLD_SIZE, but lacks WORLD_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "lacks MASTER_ADDR, MASTER_PORT"),
        (TORCHRUN | {"RANK": "2"}, "RANK must be an integer from 0 to 1, got '2'"),
        (TORCHRUN | {"WORLD_SIZE": "two"}, "WORLD_SIZE must be an integer of at least 1, got 'two'"),
        ({k: v for k, v in SLURM.items() if k != "SLURM_LOCALID"}, "lacks SLURM_LOCALID"),
        ({k: v for k, v in SLURM.items() if k != "SLURM_JOB_NODELIST"}, "or set MASTER_ADDR"),
        ({k: v for k, v in SLURM.items() if k != "SLURM_JOB_ID"}, "or set MASTER_PORT"),
    ],
)
def test_half_set_environment(environment: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_process_info(environment)


def test_without_a_job_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *SLURM):
        monkeypatch.delenv(name, raising=False)
    with distributed.init() as info:
        assert (info.rank, info.world_size) == (0, 1)


@pytest.mark.parametrize("options", [{"backend": "mpi"}, {"timeout": 0}, {"timeout": "long"}, {"watchdog": "no"}])
def test_bad_options(options: Any) -> None:
    with pytest.raises(ConfigError), distributed.init(**options):
        pass


def run_job(rank: int, processes: int, port: int, folder: str, what: str, started: str) -> None:
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    sys.stderr = open(f"{folder}/{rank}.err", "w")  # noqa: SIM115
    os.dup2(sys.stderr.fileno(), 2)
    import torch

    from unialign.losses import create

    torch.set_num_threads(1)
    if started == "before":
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    if started == "by file":
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            del os.environ[name]
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=processes, timeout=timedelta(seconds=60)
        )
    objective = create("unialign", anchor="a")
    with distributed.init(backend="gloo", timeout=60) as info, distributed.init():
        assert (info.rank, info.world_size) == (rank, processes)
        for step in range(5 if what == "nothing" else 10**6):
            batch = {name: torch.randn(4, 8, requires_grad=True) for name in ("a", "b")}
            if rank == 1 and step == 3:
                if what == "raise":
                    raise ValueError("the disk is gone")
                if what == "bad batch":
                    batch["a"] = batch["a"] * torch.nan
                if what == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
            if rank == 0 and step == 3 and what == "kill 0":
                os.kill(os.getpid(), signal.SIGKILL)
            if rank == 2 and step == 3 and what not in ("nothing", "bad batch"):
                time.sleep(1000)  # The process is outside collectives, so only the watchdog can end the process.
            objective(batch).total.backward()
    if started != "here":
        for _ in range(2):  # The group can be used with another watchdog.
            with distributed.init():
                objective(batch).total.backward()
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def ended(folder: Path, what: str, processes: int = 3, started: str = "here") -> tuple[list[int | None], list[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = [
        context().Process(target=run_job, args=(r, processes, port, str(folder), what, started))
        for r in range(processes)
    ]
    for process in job:
        process.start()
    for process in job:
        process.join(35)
    codes = [process.exitcode for process in job]
    for process in job:
        process.kill()
    return codes, [(folder / f"{rank}.err").read_text() for rank in range(processes)]


@pytest.mark.parametrize("started", ["here", "before", "by file"])
def test_job_that_ends_without_failure(tmp_path: Path, started: str) -> None:
    codes, said = ended(tmp_path, "nothing", started=started)
    assert codes == [0, 0, 0], said
    assert "unialign:" not in "".join(said)
    assert "has no watchdog" not in "".join(said)


@pytest.mark.parametrize(
    ("what", "failed", "says"),
    [
        ("raise", 1, "process 1 of 3 on HOST failed: ValueError: the disk is gone"),
        ("kill", 1, "process 1 of 3 on HOST ended without an error"),
        ("kill 0", 0, "process 0 of 3 ended or cannot be reached"),
    ],
)
def test_failed_process_ends_the_job_and_is_named(tmp_path: Path, what: str, failed: int, says: str) -> None:
    """The other processes end with an error that names the failed process; only the watchdog can end process 2."""
    codes, said = ended(tmp_path, what)
    assert codes[failed] == (1 if what == "raise" else -signal.SIGKILL), said
    for rank in {0, 1, 2} - {failed}:
        assert codes[rank] == 1, said
        assert says.replace("HOST", socket.gethostname()) in said[rank]


@pytest.mark.parametrize(("started", "what"), [("before", "kill"), ("by file", "kill 0")])
def test_killed_process_of_a_running_group_is_named(tmp_path: Path, started: str, what: str) -> None:
    """Regression test: jobs that called `init_process_group` had no watchdog, so a sleeping process never ended."""
    codes, said = ended(tmp_path, what, started=started)
    killed = 0 if what == "kill 0" else 1
    names = {1: "process 1 of 3 on", 0: "process 0 of 3 ended or cannot be reached"}
    assert codes == [-signal.SIGKILL if rank == killed else 1 for rank in range(3)], said
    for rank in {0, 1, 2} - {killed}:
        assert names[killed] in said[rank]


def test_group_that_cannot_reach_process_0_runs_without_watchdog(tmp_path: Path) -> None:
    """A warning reports that the job has no watchdog."""
    job = [context().Process(target=run_unreachable, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in job:
        process.start()
    for process in job:
        process.join(35)
    said = [(tmp_path / f"{rank}.err").read_text() for rank in range(2)]
    assert [process.exitcode for process in job] == [0, 0], said
    for text in said:
        assert "has no watchdog (process 1 of 2 on" in text


def run_unreachable(rank: int, folder: str) -> None:
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    os.dup2(os.open(f"{folder}/{rank}.err", os.O_CREAT | os.O_WRONLY), 2)
    import torch

    from unialign.distributed import _rendezvous

    _rendezvous._PATIENCE = timedelta(seconds=2)
    if rank == 1:
        # Replace the port of process 0 by a port that does not answer, as behind a firewall.
        _rendezvous.json = SimpleNamespace(loads=lambda text: ["127.0.0.1", 1])
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    with distributed.init(timeout=20) as info:
        total = torch.ones(1)
        torch.distributed.all_reduce(total)
        assert (info.world_size, total.item()) == (2, 2)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_error_of_a_batch_keeps_its_class(tmp_path: Path) -> None:
    codes, said = ended(tmp_path, "bad batch")
    assert codes == [1, 1, 1], said
    assert "NonFiniteError: 'a' row 0 holds nan" in said[1]
    for rank in (0, 2):
        assert "NonFiniteError: process 1 of 3 rejected its batch: 'a' row 0 holds nan" in said[rank]


def test_torchrun_runs_a_job_and_prints_the_error_of_a_process(tmp_path: Path) -> None:
    """Without `init`, torchrun would print only the exit code."""
    script = tmp_path / "job.py"
    script.write_text(
        "import pathlib\n"
        "import torch\n"
        "from unialign import distributed, losses\n"
        "with distributed.init(backend='gloo', watchdog=False) as info:\n"
        "    rows = {name: torch.ones(2, 3).cumsum(1) + info.rank for name in 'ab'}\n"
        "    total = losses.create('infonce', anchor='a')(rows).total.item()\n"
        "    pathlib.Path(__file__).with_name(f'{info.rank}.txt').write_text(f'{info.world_size} {total}')\n"
        "    torch.distributed.barrier()\n"
        "    raise ValueError(f'the disk of {info.rank} is gone')\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    first, second = ((tmp_path / f"{rank}.txt").read_text() for rank in (0, 1))
    assert first == second
    assert first.startswith("2 ")
    summary = done.stderr[done.stderr.index("Root Cause") :]
    assert "ValueError: the disk of" in summary


def test_a_loss_in_a_job_that_was_not_joined_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `init`, each process would use only its own rows as negatives."""
    from unialign.losses import create

    batch = {name: torch.eye(3, 4) for name in ("a", "b")}
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    objective = create("infonce")
    with pytest.warns(UserWarning, match=r"torchrun started 2 processes.*distributed\.init\(\)"):
        objective(batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objective(batch, group=None)
