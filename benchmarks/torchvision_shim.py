"""Makes torchvision importable beside a CPU build of torch, whose operators its compiled part cannot register.

open_clip and transformers import torchvision; the losses that are measured here use none of its operators. A
torchvision that loads is left alone.
"""

import importlib.machinery
from pathlib import Path

import torch

_ALIVE: list[torch.library.Library] = []  # an operator lives as long as its library


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
