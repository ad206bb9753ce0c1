from unialign.distributed._collectives import (
    Packed as Packed,
    accelerator_of as accelerator_of,
    check_device as check_device,
    collective_device as collective_device,
    deserialize_error as deserialize_error,
    first_error as first_error,
    gather_integers as gather_integers,
    gather_objects as gather_objects,
    serialize_error as serialize_error,
)
from unialign.distributed._environment import ProcessInfo as ProcessInfo, read_process_info as read_process_info
from unialign.distributed._failures import BATCH as BATCH, naming_failures as naming_failures
from unialign.distributed._group import (
    local_scope as local_scope,
    not_joined as not_joined,
    processes_of as processes_of,
)
from unialign.distributed._launch import init as init
from unialign.distributed._shard import Shard as Shard, gather_with_own_gradient as gather_with_own_gradient

__all__ = ["ProcessInfo", "init"]
