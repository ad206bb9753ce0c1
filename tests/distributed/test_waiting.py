"""Test that processes wait for process 0 longer than the timeout of their collectives."""

import time
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

from processes import WORLD, Pool
from unialign.errors import DataError
from unialign.train._process_group import ProcessGroup


def wait(rank: int, group: Any) -> list[int]:
    short = dist.new_group(list(range(WORLD)), timeout=timedelta(seconds=2))
    processes = ProcessGroup(rank, WORLD, short)

    def work() -> int:
        time.sleep(2.5)
        return 4

    def fail() -> None:
        raise DataError("no rows")

    found = [processes.broadcast_from_rank0(lambda: 3), processes.broadcast_from_rank0(work)]
    with pytest.raises(DataError, match="no rows"):
        processes.broadcast_from_rank0(fail)
    return [*found, processes.broadcast_from_rank0(lambda: 5)]


def test_process_0_may_work_longer_than_the_timeout(pool: Pool) -> None:
    assert pool.run(wait) == [[3, 4, 5]] * WORLD
