"""Find the modality and row that made a loss or gradient non-finite."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unialign._invalid_rows import first_bad_row, usable_rows
from unialign.batch import Batch
from unialign.errors import NonFiniteError
from unialign.losses import LossTerm, Objective, weighted_sum

if TYPE_CHECKING:
    from unialign.train._space_task import SpaceTask


def explain_non_finite(
    task: "SpaceTask", objective: Objective, step: int, batches: list[Tensor], cause: NonFiniteError | None
) -> NonFiniteError:
    """Name the modality, store row and step. All processes call this function with their own rows and return the same
    error.
    """
    task.optimizer.zero_grad(set_to_none=True)
    found = None
    for number, rows_n in enumerate(batches):
        inputs, present, ids = task.data.batch(rows_n, step=step, number=number)
        raw = task.embed(step, number, inputs, present)
        compute = partial(
            objective.compute,
            present=present,
            ids=ids,
            group=task.processes.group,
            zero_rows=task.config.zero_rows,
            similarity=task.similarity_at(step, rows_n),
        )
        found = _first(task, _bad_embedding(task, raw, present, rows_n))
        found = found or _bad_gradient(
            task, compute, partial(task.features, step, number, inputs, present), raw, rows_n
        )
        if found is not None:
            break
    problem = found or (str(cause) if cause is not None else "the loss or its gradient is not finite")
    return NonFiniteError(
        f"training stopped at step {step + 1}, before its update: {problem}. Lower lr (now {task.config.lr:g}) or set "
        f"max_grad_norm, and check the features of that item; the parameters are those after step {step}"
    )


def _first(task: "SpaceTask", found: str | None) -> str | None:
    """Return the finding of the lowest rank that has one."""
    return next((finding for finding in task.processes.all_gather(found) if finding is not None), None)


def _bad_embedding(
    task: "SpaceTask", raw: dict[str, Tensor], present: dict[str, Tensor] | None, rows_B: Tensor
) -> str | None:
    for name, z_BD in raw.items():
        # Check in float32, as `make_batch` does.
        bad_B = ~usable_rows(z_BD.float())
        if present is not None and name in present:
            bad_B &= present[name]
        if task.config.zero_rows == "ignore":
            bad_B &= ~torch.isfinite(z_BD).all(1)
        bad = first_bad_row(z_BD.float(), bad_B)
        if bad is not None:
            return _describe(task, name, rows_B, bad.row, f"has an embedding that {bad.what}", bad.others)
    return None


def _bad_gradient(
    task: "SpaceTask",
    compute: Callable[[dict[str, Tensor]], tuple[Batch, dict[str, LossTerm]]],
    features: Callable[[], dict[str, Tensor]],
    raw: dict[str, Tensor],
    rows_B: Tensor,
) -> str | None:
    leaves = {name: z_BD.detach().requires_grad_() for name, z_BD in raw.items()}
    batch, terms = compute(leaves)
    bad_terms = [name for name, term in terms.items() if not bool(torch.isfinite(term.value.detach()))]
    of_terms = f" of the term {', '.join(map(repr, bad_terms))}" if bad_terms else ""
    torch.autograd.backward(weighted_sum(batch, terms), inputs=list(leaves.values()))
    gradients = {name: z_BD.grad for name, z_BD in leaves.items() if z_BD.grad is not None}
    local = None
    for name, g_BD in gradients.items():
        bad = first_bad_row(g_BD, ~torch.isfinite(g_BD).all(1))
        if bad is not None:
            local = _describe(task, name, rows_B, bad.row, f"has a gradient{of_terms} that {bad.what}", bad.others)
            break
    if (found := _first(task, local)) is not None:
        return found
    if bad_terms:
        return f"the term {', '.join(map(repr, bad_terms))} is not finite"
    largest = task.processes.all_gather(_largest_gradient(task, features(), gradients, rows_B))
    return max(largest, key=lambda pair: pair[0])[1]


def _largest_gradient(
    task: "SpaceTask", features: dict[str, Tensor], gradients: dict[str, Tensor], rows_B: Tensor
) -> tuple[float, str | None]:
    """Return the size and description of a row's largest contribution to an overflowing gradient, or (-1, None)."""
    largest, found = -1.0, None
    for name, g_BD in gradients.items():
        if len(g_BD) == 0:
            continue
        # The contribution of a row to the gradient of the first layer is bounded by the norm of the gradient of its
        # embedding times the norm of its features.
        size_B = g_BD.double().norm(dim=1) * features[name].double().norm(dim=1)
        row = int(size_B.argmax())
        if float(size_B[row]) > largest:
            largest = float(size_B[row])
            problem = f"contributes most, about {largest:.1e}, to a gradient that overflows"
            found = _describe(task, name, rows_B, row, problem, 0)
    return largest, found


def _describe(task: "SpaceTask", name: str, rows_B: Tensor, row: int, problem: str, others: int) -> str:
    more = f" (and {others} more rows of this batch)" if others else ""
    return f"{name!r}, {task.data.describe(int(rows_B[row]))}, {problem}{more}"
