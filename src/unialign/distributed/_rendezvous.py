"""Open an additional store on process 0.

Processes coordinate through the store of the group, since a collective might need a device that is not set yet.
"""

import itertools
import json
import socket
from collections.abc import Callable, Sequence
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from unialign.distributed._failures import first_line
from unialign.errors import DistributedError

# Timeout for connecting to a running store.
_PATIENCE = timedelta(seconds=15)
# Counter that gives each rendezvous separate keys; it has the same value on every process.
_rendezvous_numbers = itertools.count()


def rendezvous(addresses: Sequence[str], *, timeout: float, prepare: Callable[[TCPStore], None]) -> TCPStore:
    """Return a store hosted by process 0, after every process has connected to it and called `prepare`. All processes
    must make the same calls in the same order, so that their counters agree. `timeout` is in seconds.
    """
    rank, processes = dist.get_rank(), dist.get_world_size()
    try:
        group_store = dist.distributed_c10d._get_default_store()
    except (AttributeError, ValueError, RuntimeError):
        raise DistributedError("the watchdog needs the store of the process group, but the group has none") from None
    shared = PrefixStore(f"unialign/rendezvous-{next(_rendezvous_numbers)}", group_store)
    time_limit = timedelta(seconds=timeout)
    store = None
    try:
        store = _open_store(addresses, shared) if rank == 0 else _connect(shared, time_limit)
        prepare(store)
    except (RuntimeError, DistributedError) as error:
        shared.set("failed", f"process {rank} of {processes} on {socket.gethostname()}: {first_line(error)}")
    if shared.add("answered", 1) == processes:
        shared.set("complete", "1")
    try:
        shared.wait(["complete"], time_limit)
    except RuntimeError as error:
        came = shared.add("answered", 0)
        raise DistributedError(f"only {came} of {processes} processes arrived within {timeout:g} s") from error
    if store is None or shared.check(["failed"]):
        raise DistributedError(shared.get("failed").decode())
    return store


def _open_store(addresses: Sequence[str], shared: Store) -> TCPStore:
    failure: Exception = DistributedError("process 0 has no known address")
    for address in addresses:
        try:
            store = TCPStore(address, 0, is_master=True, wait_for_workers=False, timeout=_PATIENCE)
        except RuntimeError as error:
            failure = error
        else:
            shared.set("address", json.dumps([address, store.port]))
            return store
    shared.set("address", json.dumps(None))
    raise failure


def _connect(shared: Store, time_limit: timedelta) -> TCPStore:
    shared.wait(["address"], time_limit)
    found = json.loads(shared.get("address"))
    if found is None:
        raise DistributedError("no address of process 0 works")
    address, port = found
    return TCPStore(address, port, is_master=False, timeout=_PATIENCE)
