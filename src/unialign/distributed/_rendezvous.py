"""How the processes of a running group come to one more store, which process 0 keeps.

They agree over the store that the group itself was made with: no collective of its backend is needed, which might want
a device that nobody chose yet.
"""

import itertools
import json
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from unialign.distributed._failures import first_line
from unialign.errors import DistributedError

__all__ = ["known_addresses", "rendezvous"]

# To reach a store that is there; a machine that does not answer at all takes as long.
_PATIENCE = timedelta(seconds=15)
# Each meeting has keys of its own, by a number that every process counts for itself.
_meetings = itertools.count()


def known_addresses() -> list[str]:
    """Under which names others may reach this process, if it is process 0 of a group that somebody else started."""
    addresses = [os.environ.get("MASTER_ADDR", ""), socket.gethostname()]
    return [address for address in dict.fromkeys(addresses) if address]


def rendezvous(addresses: Sequence[str], *, timeout: float, prepare: Callable[[TCPStore], None]) -> TCPStore:
    """A store that process 0 keeps and all others reach, after every process has prepared it.

    Every process comes to every meeting, in the same order. One that some processes did not come to leaves them at
    different meetings from then on: no later one succeeds either, and each ends at its time-out with this error.

    Args:
        addresses: of process 0, the first one that works; what the others say does not matter.
        timeout: seconds to wait for a process that has not come yet.
        prepare: writes what this process has to say.

    Raises:
        DistributedError: on every process, if one of them did not come or cannot reach process 0.
    """
    rank, processes = dist.get_rank(), dist.get_world_size()
    shared = _store_of_the_group()
    if shared is None:
        raise DistributedError("the process group was made without a store over which its processes could agree")
    shared = PrefixStore(f"unialign/meeting-{next(_meetings)}", shared)
    patience = timedelta(seconds=timeout)
    store = None
    try:
        store = _keep(addresses, shared) if rank == 0 else _reach(shared, patience)
        prepare(store)
    except (RuntimeError, DistributedError) as error:
        shared.set("failed", f"process {rank} of {processes} on {socket.gethostname()}: {first_line(error)}")
    if shared.add("answered", 1) == processes:
        shared.set("complete", "1")
    try:
        shared.wait(["complete"], patience)
    except RuntimeError as error:
        came = shared.add("answered", 0)
        raise DistributedError(f"only {came} of {processes} processes came within {timeout:g} s") from error
    if store is None or shared.check(["failed"]):
        raise DistributedError(shared.get("failed").decode())
    return store


def _keep(addresses: Sequence[str], shared: Store) -> TCPStore:
    failure: RuntimeError | None = None
    for address in addresses:
        try:
            store = TCPStore(address, 0, is_master=True, wait_for_workers=False, timeout=_PATIENCE)
        except RuntimeError as error:
            failure = error
            continue
        shared.set("place", json.dumps([address, store.port]))
        return store
    shared.set("place", json.dumps(None))
    raise failure or DistributedError("process 0 knows no address of its own")


def _reach(shared: Store, patience: timedelta) -> TCPStore:
    shared.wait(["place"], patience)
    place = json.loads(shared.get("place"))
    if place is None:
        raise DistributedError("process 0 has no address that works")
    address, port = place
    return TCPStore(address, port, is_master=False, timeout=_PATIENCE)


def _store_of_the_group() -> Store | None:
    with suppress(AttributeError, ValueError, RuntimeError):
        store: Store = dist.distributed_c10d._get_default_store()
        return store
    return None
