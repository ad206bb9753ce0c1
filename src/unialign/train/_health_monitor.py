"""Health checks for a training loop that does not use `fit`."""

import warnings
from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor

from unialign._checks import check_integer
from unialign.batch import Batch, ZeroRows, make_batch
from unialign.losses import CallArguments, LossOutput, LossTerm, Objective
from unialign.train._monitor import HealthWarning, check_health


class HealthMonitor:
    """Warn of problems that the value of a loss does not reveal, with the same rules as `fit`.

    The rules find modalities that collapse to a point or a line, a loss that stays at the level of chance, batches
    without two items to compare, repeated captions without ids, learned parameters at their bounds, and, for
    `UniAlign`, unbalanced gradients. Each problem is reported only once.

    Attributes:
        numbers: results of the last check: `cosine/<modality>` (mean cosine of different items), `rank/<modality>`
            (effective rank), and `gradient_ratio` for `UniAlign`.
        warnings: all problems found so far.

    Examples:
        >>> import torch, unialign as ua
        >>> loss = ua.losses.UniAlign(anchor="all")
        >>> monitor = ua.train.HealthMonitor(loss, every=50)
        >>> z = {"image": torch.randn(64, 16), "text": torch.randn(64, 16)}
        >>> monitor.check(z, loss(z))
        []

    Args:
        loss: the objective of the training loop.
        every: number of calls per check. A check of 512 rows takes about as long as the loss.
    """

    def __init__(self, loss: Objective, *, every: int = 1) -> None:
        check_integer("every", every, low=1)
        self.loss, self.every = loss, every
        self.numbers: dict[str, float] = {}
        self.warnings: list[HealthWarning] = []
        self._calls = 0

    def check(
        self,
        embeddings: Mapping[str, Tensor],
        out: LossOutput,
        *,
        present: Mapping[str, Tensor] | None = None,
        ids: Tensor | None = None,
        zero_rows: ZeroRows = "error",
        **call: Unpack[CallArguments],
    ) -> list[HealthWarning]:
        """Check the arguments and the result of a loss call; issue and return the new warnings.

        On several processes, each process checks its own rows. Pass the same further arguments (`temperature`, `queue`,
        ...) as to the loss.

        Args:
            embeddings, present, ids, zero_rows: as passed to the loss; shapes (B, D) and (B,) per modality, and (B,).
            out: the result of the loss.

        Raises:
            ShapeError, NonFiniteError, ConfigError: see `unialign.batch.make_batch`.
        """
        self._calls += 1
        if self._calls % self.every != 0:
            return []
        rows = {name: z.detach().requires_grad_() for name, z in embeddings.items()}
        more = call.get("negatives") is not None or call.get("queue") is not None
        with torch.enable_grad():
            batch, terms = self._terms(rows, out, present=present, ids=ids, zero_rows=zero_rows, **call)
            self.numbers, found = check_health(self.loss, batch, terms, step=self._calls, more_negatives=more)
        known = {warning.code for warning in self.warnings}
        new = [warning for warning in found if warning.code not in known]
        self.warnings += new
        for warning in new:
            warnings.warn(warning, stacklevel=2)
        return new

    def _terms(
        self,
        rows: Mapping[str, Tensor],
        out: LossOutput,
        *,
        present: Mapping[str, Tensor] | None,
        ids: Tensor | None,
        zero_rows: ZeroRows,
        **call: Unpack[CallArguments],
    ) -> tuple[Batch, dict[str, LossTerm]]:
        """Recompute the terms with a graph if the gradient ratio is needed."""
        if hasattr(self.loss, "alignment_weight"):
            return self.loss.compute(rows, present=present, ids=ids, group=None, zero_rows=zero_rows, **call)
        batch = make_batch(rows, present=present, ids=ids, zero_rows=zero_rows)
        return batch, {name: LossTerm(value, 1.0) for name, value in out.terms.items()}
