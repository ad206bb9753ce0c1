"""Embed the rows of a modality in batches.

Shapes: `B` rows, `W` dimension of the features, `D` of the embeddings.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unialign.batch import as_dense
from unialign.io import MappedPages
from unialign.space._validation import check_finite, normalize_output

if TYPE_CHECKING:
    from unialign.space._space import Space


def encode_rows(
    space: "Space", name: str, x: Tensor | NDArray[Any], mask: Tensor | None, *, batch_size: int, dim: int | None
) -> Tensor:
    parameter = space._like()
    x = x if isinstance(x, Tensor) else np.asarray(x)
    out_BD = parameter.new_zeros(len(x), dim or space.dim)
    pages = MappedPages([] if isinstance(x, Tensor) else [x])
    for start in range(0, len(x), batch_size):
        part = slice(start, start + batch_size)
        x_BW = as_dense(x[part], repr(name), "(B, W)").to(parameter)
        mask_B = None if mask is None else mask[part].to(parameter.device)
        check_finite(name, x_BW, mask_B, start)
        raw_BD = space.project({name: space.prepare(name, x_BW, present=mask_B)})[name]
        out_BD[part] = normalize_output(name, raw_BD[:, :dim], mask_B, start)
        pages.limit()
    return out_BD
