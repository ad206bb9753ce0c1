"""Sum weighted kernel values of all pairs of modalities of a small batch at once (see `_weighted_log_sums`).

The logits of all pairs are one batched product, which is faster than one product per pair for a few hundred items.

Shapes: `M` modalities, `N` items, `D` dimension, `P` pairs of modalities, `C` pairs of different modalities, `K`
directions.
"""

import torch
from torch import Tensor

from unialign.ops._pair_sums import PairSums

# Maximum number of logits, P N^2, of a CPU and of a GPU.
_LOGITS_CPU, _LOGITS_GPU = 2**18, 2**26


def fits_block(z_MND: Tensor, sums: PairSums) -> bool:
    largest = _LOGITS_CPU if z_MND.device.type == "cpu" else _LOGITS_GPU
    whole = sums.selection.local_R is None and all(kernel.rate is not None for kernel in sums.kernels)
    return whole and len(sums.pairs) * z_MND.shape[1] ** 2 <= largest


class WeightedBlock:
    """Logits of all pairs, up to the constant `rate` of each pair."""

    def __init__(self, z_MND: Tensor, sums: PairSums) -> None:
        self.z_MND, self.sums = z_MND, sums
        self.query_P, self.key_P = (torch.tensor(side, device=z_MND.device) for side in zip(*sums.pairs, strict=True))
        self.between = [p for p, (m, n) in enumerate(sums.pairs) if m != n]
        rates = [kernel.rate or 0.0 for kernel in sums.kernels]  # `fits_block` excludes kernels without a rate
        self.rate_P11 = z_MND.new_tensor(rates)[:, None, None]
        self.rate_K1 = self._rows_of_directions(torch.tensor(rates, dtype=torch.float64, device=z_MND.device)[:, None])
        self.query_PND, self.key_PND = z_MND[self.query_P], z_MND[self.key_P]
        self.bias_PNN = self._bias()
        scaled_PND = self.query_PND * self.rate_P11
        if self.bias_PNN is None:
            self.logit_PNN = torch.bmm(scaled_PND, self.key_PND.mT)
        else:
            self.logit_PNN = torch.baddbmm(self.bias_PNN, scaled_PND, self.key_PND.mT)

    def log_sums(self) -> Tensor:
        """Return l, shape (K, N)."""
        self._mask_()
        sums_PN = [torch.logsumexp(self.logit_PNN, dim).double() for dim in (2, 1)]
        return self._directions(*sums_PN) - self.rate_K1

    def mean_logits(self, log_KN: Tensor) -> Tensor:
        """Return sum_j p_ij rate cos_ij, shape (K, N)."""
        product_PNN = self.logit_PNN.clone() if self.bias_PNN is None else self.logit_PNN - self.bias_PNN
        self._mask_()
        forward_PN, backward_PN = self._pairs(self._shifts(log_KN))
        means = []
        for shift_PN, dim in ((forward_PN, 2), (backward_PN, 1)):
            p_PNN = torch.exp(self.logit_PNN - shift_PN.to(self.logit_PNN.dtype).unsqueeze(dim))
            means.append(p_PNN.mul_(product_PNN).sum(dim).double())
        return self._directions(*means)

    def gradient(self, log_KN: Tensor, g_KN: Tensor) -> Tensor:
        """Return the gradient of sum_ki g_ki l_ki."""
        self._mask_()
        dtype = self.z_MND.dtype
        shifts, factors = self._pairs(self._shifts(log_KN)), self._pairs(g_KN * self.rate_K1)
        weight_PNN = torch.zeros_like(self.logit_PNN)
        for shift_PN, factor_PN, dim in zip(shifts, factors, (2, 1), strict=True):
            p_PNN = torch.exp(self.logit_PNN - shift_PN.to(dtype).unsqueeze(dim))
            weight_PNN.addcmul_(p_PNN, factor_PN.to(dtype).unsqueeze(dim))
        gradient_MND = torch.zeros_like(self.z_MND)
        gradient_MND.index_add_(0, self.query_P, torch.bmm(weight_PNN, self.key_PND))
        if self.between:
            # A sum within a modality has no second direction: its weights contain those of the keys.
            weight_CNN, query_CND = (weight_PNN, self.query_PND)
            if len(self.between) < len(self.sums.pairs):
                weight_CNN, query_CND = weight_PNN[self.between], self.query_PND[self.between]
            gradient_MND.index_add_(0, self.key_P[self.between], torch.bmm(weight_CNN.mT, query_CND))
        return gradient_MND

    def _bias(self) -> Tensor | None:
        half = [None if x_NW is None else torch.mm(-x_NW, x_NW.mT).clamp_(max=0.0) for x_NW in self.sums.features]
        if all(part is None for part in half):
            return None
        zeros_NN = self.z_MND.new_zeros(self.z_MND.shape[1], self.z_MND.shape[1])
        parts = [zeros_NN if part is None else part for part in half]
        return torch.stack([parts[m] + parts[n] for m, n in self.sums.pairs])

    def _mask_(self) -> None:
        masked_NN = self.sums.selection.masked_table(self.z_MND.device)
        valid_PN = self.sums.valid_PN
        masked = masked_NN if valid_PN is None else masked_NN | ~(valid_PN[:, :, None] & valid_PN[:, None])
        self.logit_PNN.masked_fill_(masked, -torch.inf)

    def _shifts(self, log_KN: Tensor) -> Tensor:
        """Log sums of the logits; inf for empty sums, so that their exponentials are 0."""
        return torch.where(log_KN == -torch.inf, torch.inf, log_KN + self.rate_K1)

    def _directions(self, forward_PN: Tensor, backward_PN: Tensor) -> Tensor:
        """Join the rows of both directions of each pair, in the order of `PairSums.directions`."""
        rows: list[Tensor] = []
        for p, (m, n) in enumerate(self.sums.pairs):
            rows += [forward_PN[p]] if m == n else [forward_PN[p], backward_PN[p]]
        return torch.stack(rows)

    def _pairs(self, x_KN: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of the forward and the backward direction of each pair, which are equal within a modality."""
        forward: list[int] = []
        backward: list[int] = []
        for k, (p, _, _) in enumerate(self.sums.directions):
            (forward if len(forward) == p else backward).append(k)
            if self.sums.pairs[p][0] == self.sums.pairs[p][1]:
                backward.append(k)
        return x_KN[forward], x_KN[backward]

    def _rows_of_directions(self, x_P1: Tensor) -> Tensor:
        return torch.stack([x_P1[p] for p, _, _ in self.sums.directions])
