"""Symile: contrastive loss of multilinear inner products (Saporta et al. 2024)."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from unialign._checks import check_choice, check_integer, check_seed
from unialign.batch import Batch
from unialign.errors import ConfigError
from unialign.functional import block_symile, symile_all, symile_sampled
from unialign.losses._bounded_parameter import Mode, Temperature
from unialign.losses._call_inputs import TEMPERATURE_ARGUMENTS
from unialign.losses._objective import LossTerm, Objective

Negatives = Literal["sampled", "all"]


class Symile(Objective):
    """Contrastive loss of multilinear inner products: each modality classifies the true tuple of the others.

    The loss is the mean over the modalities r of -log softmax of MIP(true tuple) / tau among tuples of the other
    modalities, with MIP(z^1, ..., z^M) = sum_d prod_m z^m_d. Symile has no anchor and uses complete items only. M = 2
    gives symmetric InfoNCE. For M >= 3, the product depends on the basis, so rotating the space changes the loss.

    Products of unit vectors are small, about D^((1 - M) / 2), so tau must be small too. The authors learn the logit
    scale 1 / tau from an initial value per experiment: exp(-0.3) for unit rows at D = 16, exp(-6) for rows of length
    sqrt(D) at D = 8192, equivalent to 1 / tau = 1,800 for unit rows. With both values, the logits of random tuples are
    0.05 to 0.2. This also holds for the default temperature 0.01 at M = 3 and D = 512; divide the temperature by D /
    512 for larger D.

    Args:
        negatives: `sampled`, B - 1 tuples for each query, with each of the other modalities permuted separately
            (default, O(B^2)), or `all`, all B^(M - 1) tuples.
        temperature: tau > 0, the initial value if it is learnable.
        temperature_mode: `learnable` within `temperature_bounds`, as published, or `fixed`.
        seed: seed of the permutations, which are a function of seed, modality and `draw`, the number of training steps
            so far. `draw` is part of `state_dict`, so a resumed run draws the same permutations as an uninterrupted
            one. `draw` advances only in training mode with gradients; eval mode always uses the first draw.
        max_bytes: memory limit of `negatives="all"` for loss and gradient together; a larger need raises ConfigError.
    """

    name = "symile"
    display_name = "Symile"
    call_arguments = TEMPERATURE_ARGUMENTS
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
        z_MND, ids_N = batch.z_MBD, batch.ids_B
        if not batch.complete:
            z_MND, ids_N = z_MND[:, complete_B], None if ids_N is None else ids_N[complete_B]
        temperature = self.call_temperature(batch)
        values: Sequence[Tensor]
        if self.negatives == "all":
            values = self._all(z_MND, ids_N, temperature)
        else:
            values = self._sampled(z_MND, ids_N, temperature, sharded=batch.shard is not None)
        return {
            f"multilinear_contrast/{name}": LossTerm(value, 1 / len(values))
            for name, value in zip(batch.names, values, strict=True)
        }

    def draw_number(self) -> int:
        return int(self.draw) if self.training and self.negatives == "sampled" else 0

    def advance_draw(self) -> None:
        if self.training and self.negatives == "sampled" and torch.is_grad_enabled():
            self.draw += 1

    def _sampled(
        self, z_MND: Tensor, ids_N: Tensor | None, temperature: Tensor | float, *, sharded: bool
    ) -> Sequence[Tensor]:
        modalities, items, _ = z_MND.shape
        rows_MMN = draw_permutations(modalities, items, seed=self.seed, draw=self.draw_number()).to(z_MND.device)
        values: Sequence[Tensor] | None = None
        if not sharded:
            values = block_symile(z_MND, rows_MMN=rows_MMN, temperature=temperature, ids_N=ids_N)
        if values is None:
            values = symile_sampled(z_MND, rows_MMN=rows_MMN, temperature=temperature, ids_N=ids_N)
        return values

    def _all(self, z_MND: Tensor, ids_N: Tensor | None, temperature: Tensor | float) -> list[Tensor]:
        modalities, items, dim = z_MND.shape
        needed = _bytes_of_all(modalities, items, dim, z_MND.element_size())
        if needed > self.max_bytes:
            raise ConfigError(
                f"negatives='all' compares {items}^{modalities} tuples of {items} complete items, which takes about "
                f"{needed / 2**30:.3g} GiB, more than max_bytes={self.max_bytes}; use negatives='sampled', a smaller "
                f"batch, or raise max_bytes"
            )
        return symile_all(z_MND, temperature=temperature, ids_N=ids_N)


def draw_permutations(modalities: int, items: int, *, seed: int, draw: int) -> Tensor:
    """Return an (M, M, N) int64 tensor: row [r, m] lists the items whose vectors of m form the keys for queries of r.

    The result depends only on the arguments. Two modalities are not permuted, since a permutation would only reorder
    the keys.
    """
    identity_N = torch.arange(items)
    if modalities == 2:
        return identity_N.repeat(modalities, modalities, 1)
    rows = []
    for r in range(modalities):
        # NumPy guarantees this stream for a seed. Permutations are drawn on the CPU, so they are the same for all
        # devices.
        words = np.random.SeedSequence([seed, draw, r]).generate_state(2, np.uint32)
        generator = torch.Generator().manual_seed((int(words[0]) << 31) ^ int(words[1]))
        rows += [identity_N if m == r else torch.randperm(items, generator=generator) for m in range(modalities)]
    return torch.stack(rows).view(modalities, modalities, items)


def _bytes_of_all(modalities: int, items: int, dim: int, itemsize: int) -> int:
    """Peak memory of `symile_all` and gradient: five tables, two masks, both factors and their gradients."""
    half = modalities // 2
    tuples: int = items**modalities
    rows: int = items**half + items ** (modalities - half)
    return tuples * (5 * itemsize + 2) + 2 * rows * dim * itemsize
