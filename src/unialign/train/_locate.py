"""After a non-finite number: which modality and which row it came from. Only run when training has failed already."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unialign.embeddings import first_bad_row, usable_rows
from unialign.errors import NonFiniteError
from unialign.losses import Objective, weighted_sum

if TYPE_CHECKING:
    from unialign.train._engine import Engine

__all__ = ["explain"]


def explain(
    engine: "Engine", objective: Objective, step: int, pieces: list[Tensor], cause: NonFiniteError | None
) -> NonFiniteError:
    """The error that names modality, row of the store and step (counted from 1).

    Looks at the embeddings first, then at the gradient by embedding, last for the row with the largest gradient.
    """
    engine.optimizer.zero_grad(set_to_none=True)
    found = None
    for micro, rows_B in enumerate(pieces):
        features, present, ids = engine.data.batch(rows_B.to(engine.device))
        raw = engine.embed(step, micro, features, present)
        found = _bad_embedding(engine, raw, present, rows_B)
        found = found or _bad_gradient(engine, objective, features, raw, present, ids, rows_B)
        if found is not None:
            break
    what = found or (str(cause) if cause is not None else "the loss or its gradient is not finite")
    return NonFiniteError(
        f"training stopped at step {step + 1}, before its update: {what}. Lower lr (now {engine.config.lr:g}) or set "
        f"clip, and look at the features of that item; the parameters are those of step {step}"
    )


def _bad_embedding(
    engine: "Engine", raw: dict[str, Tensor], present: dict[str, Tensor] | None, rows_B: Tensor
) -> str | None:
    for name, z_BD in raw.items():
        # In float32, as `make_batch` sees it.
        bad_B = ~usable_rows(z_BD.float())[1]
        if present is not None and name in present:
            bad_B &= present[name]
        bad = first_bad_row(z_BD.float(), bad_B)
        if bad is not None:
            return _sentence(engine, name, rows_B, bad.row, f"has an embedding that {bad.what}", bad.others)
    return None


def _bad_gradient(
    engine: "Engine",
    objective: Objective,
    features: dict[str, Tensor],
    raw: dict[str, Tensor],
    present: dict[str, Tensor] | None,
    ids: Tensor | None,
    rows_B: Tensor,
) -> str | None:
    leaves = {name: z_BD.detach().requires_grad_() for name, z_BD in raw.items()}
    batch, terms = objective.compute(leaves, present=present, ids=ids)
    total = weighted_sum(batch, terms)
    culprits = [name for name, term in terms.items() if not bool(torch.isfinite(term.value.detach()))]
    where = f" of the term {', '.join(map(repr, culprits))}" if culprits else ""
    gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    for name, g_BD in zip(leaves, gradients, strict=True):
        bad = None if g_BD is None else first_bad_row(g_BD, ~torch.isfinite(g_BD).all(1))
        if bad is not None:
            what = f"has a gradient{where} that {bad.what}"
            return _sentence(engine, name, rows_B, bad.row, what, bad.others)
    if culprits:
        return f"the term {', '.join(map(repr, culprits))} is not finite"
    return _largest_gradient(engine, features, dict(zip(leaves, gradients, strict=True)), rows_B)


def _largest_gradient(
    engine: "Engine", features: dict[str, Tensor], gradients: dict[str, Tensor | None], rows_B: Tensor
) -> str | None:
    """The row that contributes most to a gradient that is finite by row and overflows in the sum."""
    largest, found = -1.0, None
    for name, g_BD in gradients.items():
        if g_BD is None:
            continue
        # A row adds (gradient of its embedding) x (its features) to the gradient of the first layer.
        share_B = g_BD.double().norm(dim=1) * features[name].double().norm(dim=1)
        row = int(share_B.argmax())
        if float(share_B[row]) > largest:
            largest = float(share_B[row])
            what = f"has the largest share, about {largest:.1e}, in a gradient that overflows"
            found = _sentence(engine, name, rows_B, row, what, 0)
    return found


def _sentence(engine: "Engine", name: str, rows_B: Tensor, row: int, what: str, others: int) -> str:
    more = f" (and {others} more rows of this batch)" if others else ""
    return f"{name!r}, {engine.data.where(int(rows_B[row]))}, {what}{more}"
