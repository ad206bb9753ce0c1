"""Describe the software and hardware used to compute results."""

import datetime
import os
import platform
from typing import Any

import numpy as np
import torch

from unialign._version import __version__


def describe_environment() -> dict[str, Any]:
    return {
        "unialign": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def training_environment(device: torch.device, processes: int) -> dict[str, Any]:
    """Return settings that affect bitwise reproducibility, which are compared when a run is resumed."""
    return {
        "unialign": __version__,
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "device": "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device),
        "processes": processes,
    }
