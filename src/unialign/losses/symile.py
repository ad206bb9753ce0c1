"""Symile: contrast of multilinear inner products (Saporta et al. 2024)."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from unialign._checks import check_choice, check_integer, check_seed
from unialign.batch import Batch
from unialign.errors import ConfigError
from unialign.functional import all_contrasts, all_contrasts_bytes, draw_permutations, sampled_contrasts
from unialign.losses._bounded_parameter import Mode
from unialign.losses._objective import LossTerm, Objective
from unialign.losses._temperature import Temperature

__all__ = ["Symile"]

Negatives = Literal["sampled", "all"]


class Symile(Objective):
    """Mean over the modalities r of -log softmax of MIP(own tuple) / tau among tuples of the others.

    MIP(z^1, ..., z^M) = sum_d prod_m z^m_d. It has no anchor and uses complete items only. M = 2 is symmetric InfoNCE.
    For M >= 3 the product depends on the basis: rotating the space changes the loss.

    Products of unit vectors are small, about D^((1 - M) / 2), so tau must be small too. The authors learn the logit
    scale 1 / tau and start it per experiment: exp(-0.3) for unit rows at D = 16, exp(-6) for rows of length sqrt(D) at
    D = 8192, which is 1 / tau = 1,800 for unit rows; both give random tuples logits of 0.05 to 0.2. The default 0.01
    does so at M = 3 and D = 512; divide it by D / 512 for wider spaces.

    Args:
        negatives: `sampled`: B - 1 tuples for each query, each other modality permuted by itself (default, O(B^2));
            `all`: all B^(M - 1) tuples.
        temperature: tau > 0, the start if it is learnable.
        temperature_mode: `learnable` within `temperature_bounds`, as published, or `fixed`.
        seed: of the permutations. They are a function of seed, modality and `draw`, the number of training steps so
            far, which is part of `state_dict`: a resumed run draws what an uninterrupted one would. In eval mode or
            without gradients nothing advances, and in eval mode the draw is always the first.
        max_bytes: most memory that `negatives="all"` may take, loss and gradient together; beyond it a call is refused.
    """

    name = "symile"
    display_name = "Symile"
    draw: Tensor

    def __init__(
        self,
        *,
        negatives: Negatives = "sampled",
        temperature: float = 0.01,
        temperature_mode: Mode = "learnable",
        temperature_bounds: tuple[float, float] = (1e-4, 1.0),
        seed: int = 0,
        max_bytes: int = 2**30,
    ) -> None:
        super().__init__()
        check_choice("negatives", negatives, get_args(Negatives))
        check_seed(seed)
        check_integer("max_bytes", max_bytes, low=1, high=2**63 - 1)
        self.negatives, self.seed, self.max_bytes = negatives, seed, max_bytes
        self.temperature = Temperature(temperature, mode=temperature_mode, bounds=temperature_bounds)
        self.register_buffer("draw", torch.zeros((), dtype=torch.int64))

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        complete_B = batch.present_MB.all(0)
        if not bool(complete_B.any()):
            return {}
        z_MND, ids_N = batch.z_MBD[:, complete_B], None if batch.ids_B is None else batch.ids_B[complete_B]
        values = self._all(z_MND, ids_N) if self.negatives == "all" else self._sampled(z_MND, ids_N)
        return {
            f"multilinear_contrast/{name}": LossTerm(value, 1 / len(values))
            for name, value in zip(batch.names, values, strict=True)
        }

    def draw_number(self) -> int:
        return int(self.draw) if self.training and self.negatives == "sampled" else 0

    def _sampled(self, z_MND: Tensor, ids_N: Tensor | None) -> list[Tensor]:
        modalities, items, _ = z_MND.shape
        rows_MMN = draw_permutations(modalities, items, seed=self.seed, draw=self.draw_number()).to(z_MND.device)
        values = sampled_contrasts(z_MND, rows_MMN=rows_MMN, temperature=self.temperature(), ids_N=ids_N)
        if self.training and torch.is_grad_enabled():
            self.draw += 1
        return values

    def _all(self, z_MND: Tensor, ids_N: Tensor | None) -> list[Tensor]:
        modalities, items, width = z_MND.shape
        needed = all_contrasts_bytes(modalities, items, width, z_MND.element_size())
        if needed > self.max_bytes:
            raise ConfigError(
                f"negatives='all' compares {items}^{modalities} tuples of {items} complete items, which takes about "
                f"{needed / 2**30:.3g} GiB, more than max_bytes={self.max_bytes}; use negatives='sampled', a smaller "
                f"batch, or raise max_bytes"
            )
        return all_contrasts(z_MND, temperature=self.temperature(), ids_N=ids_N)

    def get_config(self) -> dict[str, Any]:
        return {
            "negatives": self.negatives,
            **self.temperature.get_config(),
            "seed": self.seed,
            "max_bytes": self.max_bytes,
        }
