"""Make torchvision importable with a CPU build of torch, on which its compiled operators cannot be registered.

open_clip and transformers import torchvision, but the measured losses use none of its operators.
"""

import importlib.machinery
from pathlib import Path

import torch

_ALIVE: list[torch.library.Library] = []  # a reference keeps the operators registered


def make_torchvision_importable() -> None:
    spec = importlib.machinery.PathFinder.find_spec("torchvision")
    if spec is None or spec.origin is None or _ALIVE:
        return
    for compiled in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(compiled))
            return
        except OSError:
            pass
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _ALIVE.append(library)
