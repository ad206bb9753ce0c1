"""After a non-finite number: which modality and which row it came from. Only run when training has failed already."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unialign.batch import first_bad_row, usable_rows
from unialign.errors import NonFiniteError
from unialign.losses import Objective, weighted_sum

if TYPE_CHECKING:
    from unialign.train._step import Stepper

__all__ = ["explain"]


def explain(
    engine: "Stepper", objective: Objective, step: int, batches: list[Tensor], cause: NonFiniteError | None
) -> NonFiniteError:
    """The error that names modality, row of the store and step (counted from 1).

    Looks at the embeddings first, then at the gradient by embedding, last for the row with the largest gradient. All
    processes come here together, each with its own rows of the batches, and agree after each look: none may be alone
    in the loss, and all report the same.
    """
    engine.optimizer.zero_grad(set_to_none=True)
    found = None
    for micro, own_n in enumerate(batches):
        features, present, ids = engine.data.batch(own_n.to(engine.device))
        raw = engine.embed(step, micro, features, present)
        found = _any(engine, _bad_embedding(engine, raw, present, own_n))
        if found is None:
            found = _bad_gradient(engine, objective, features, raw, present, ids, own_n)
        if found is not None:
            break
    what = found or (str(cause) if cause is not None else "the loss or its gradient is not finite")
    return NonFiniteError(
        f"training stopped at step {step + 1}, before its update: {what}. Lower lr (now {engine.config.lr:g}) or set "
        f"clip, and look at the features of that item; the parameters are those of step {step}"
    )


def _any(engine: "Stepper", found: str | None) -> str | None:
    """The first of what the processes found."""
    return next((words for words in engine.peers.all_gather(found) if words is not None), None)


def _bad_embedding(
    engine: "Stepper", raw: dict[str, Tensor], present: dict[str, Tensor] | None, rows_B: Tensor
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
    engine: "Stepper",
    objective: Objective,
    features: dict[str, Tensor],
    raw: dict[str, Tensor],
    present: dict[str, Tensor] | None,
    ids: Tensor | None,
    rows_B: Tensor,
) -> str | None:
    leaves = {name: z_BD.detach().requires_grad_() for name, z_BD in raw.items()}
    batch, terms = objective.compute(leaves, present=present, ids=ids, group=engine.peers.group)
    total = weighted_sum(batch, terms)
    culprits = [name for name, term in terms.items() if not bool(torch.isfinite(term.value.detach()))]
    where = f" of the term {', '.join(map(repr, culprits))}" if culprits else ""
    made = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    gradients = {name: g_BD for name, g_BD in zip(leaves, made, strict=True) if g_BD is not None}
    own = None
    for name, g_BD in gradients.items():
        bad = first_bad_row(g_BD, ~torch.isfinite(g_BD).all(1))
        if bad is not None:
            what = f"has a gradient{where} that {bad.what}"
            own = _sentence(engine, name, rows_B, bad.row, what, bad.others)
            break
    if (found := _any(engine, own)) is not None:
        return found
    if culprits:
        return f"the term {', '.join(map(repr, culprits))} is not finite"
    _, found = max(
        engine.peers.all_gather(_largest_gradient(engine, features, gradients, rows_B)), key=lambda pair: pair[0]
    )
    return found


def _largest_gradient(
    engine: "Stepper", features: dict[str, Tensor], gradients: dict[str, Tensor], rows_B: Tensor
) -> tuple[float, str | None]:
    """How much the row contributes that contributes most to a gradient which is finite by row and overflows in the
    sum, and a sentence that names it; -1 and None where there is no row.
    """
    largest, found = -1.0, None
    for name, g_BD in gradients.items():
        if len(g_BD) == 0:
            continue
        # A row adds (gradient of its embedding) x (its features) to the gradient of the first layer.
        share_B = g_BD.double().norm(dim=1) * features[name].double().norm(dim=1)
        row = int(share_B.argmax())
        if float(share_B[row]) > largest:
            largest = float(share_B[row])
            what = f"has the largest share, about {largest:.1e}, in a gradient that overflows"
            found = _sentence(engine, name, rows_B, row, what, 0)
    return largest, found


def _sentence(engine: "Stepper", name: str, rows_B: Tensor, row: int, what: str, others: int) -> str:
    more = f" (and {others} more rows of this batch)" if others else ""
    return f"{name!r}, {engine.data.where(int(rows_B[row]))}, {what}{more}"
