"""Number the classes of labels.

Shapes: `N` items, `C` classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign.errors import ConfigError
from unialign.metrics import label_codes


def numbered(labels: Any, train_N: Tensor, *, rows: int) -> tuple[Tensor, tuple[Any, ...], int]:
    """Return (N,) class numbers (-1: unlabeled), the classes by number, and the number C of classes with a training
    item, which come first. Both groups of classes are in ascending order.
    """
    code_N = label_codes(labels, "y", rows=rows)
    values_N = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    used, first = np.unique(code_N[code_N >= 0], return_index=True)
    names = [values_N[code_N >= 0][place].item() for place in first]
    in_train = np.isin(used, code_N[train_N.numpy()])
    order = [*np.flatnonzero(in_train), *np.flatnonzero(~in_train)]
    number_of = np.empty(len(used), np.int64)
    number_of[order] = np.arange(len(order))
    # Labels may be large numbers, so no array is indexed by them.
    number_N = np.full(len(code_N), -1, np.int64)
    number_N[code_N >= 0] = number_of[np.searchsorted(used, code_N[code_N >= 0])]
    return torch.from_numpy(number_N), tuple(names[place] for place in order), int(in_train.sum())


def numbered_by_name(labels: Any, classes: Sequence[str], *, rows: int) -> Tensor:
    """Return (N,) class numbers of labels that are names or numbers of the given classes; -1: unlabeled."""
    values_N = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    code_N = label_codes(labels, "labels", rows=rows)
    if values_N.dtype.kind in "US":
        places = {name: number for number, name in enumerate(classes)}
        for row in np.flatnonzero(code_N >= 0).tolist():
            if str(values_N[row]) not in places:
                raise ConfigError(
                    f"the label of row {row} is {str(values_N[row])!r}, which is not in class_names; the classes are "
                    f"{', '.join(map(repr, classes[:8]))}{', ...' if len(classes) > 8 else ''}"
                )
        code_N = np.array([places.get(str(value), -1) for value in values_N], np.int64)
    elif len(code_N) and code_N.max() >= len(classes):
        row = int(code_N.argmax())
        raise ConfigError(
            f"the label of row {row} is {code_N[row]}, but class_names has {len(classes)} classes, 0 to "
            f"{len(classes) - 1}; give a name for every class"
        )
    return torch.from_numpy(code_N.astype(np.int64))
