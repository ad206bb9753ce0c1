"""Compute log-partitions within and across modalities whose negatives are weighted by the similarity of their features.

Shapes: `M` modalities, `B` items, `N` selected items, `P` pairs of modalities, `K` directions, `W` features.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from unialign.batch import Batch
from unialign.functional._value_order import value_order
from unialign.ops import Kernel, KernelFunction, PairSums, select_items, weighted_log_sums

# Whether the partition between two modalities contains the own positive.
PartitionPositive = Literal["included", "excluded"]


class Partition(NamedTuple):
    """Partition of a pair of modalities, in float64.

    Attributes:
        value: mean of the log-partitions.
        positive: mean log kappa of the true pairs; 0 within a modality, and if the true pairs are excluded.
        defined: whether the mean is over any item.
    """

    value: Tensor
    positive: Tensor
    defined: bool


def weighted_partitions(
    batch: Batch,
    pairs: Sequence[tuple[int, int]],
    *,
    kernel: Kernel,
    temperatures: Sequence[Tensor | float],
    similarity: Mapping[str, Tensor],
    positive: PartitionPositive,
) -> list[Partition]:
    """Return the partition of each pair of modalities; a pair of a modality with itself is its uniformity.

    With w_ij = exp(-s max(0, cos(x_i, x_j))) of the features of a modality, and J_i the other items with the modalities
    of the pair and another id,

        within a modality   mean_i log [ 1 / |J_i| sum_{j in J_i} w_ij kappa(z_i, z_j) ]
        of two modalities   1/2 mean_i [ log sum_{j in J_i} w_ij kappa(z_i, y_j)
                                         + log sum_{j in J_i} w_ij kappa(y_i, z_j) ]

    where the weight of two modalities is the geometric mean of their weights. With `included`, the sums of two
    modalities contain the true pair with weight 1. The weights have no gradient. Items with empty J_i are left out of
    the mean, unless the true pair is included.

    Args:
        pairs: each unordered pair at most once.
        temperatures: tau of each pair; the gradient of tensors requires a kernel that is log-linear in the cosine.
        similarity: (B, W) features by modality, unit rows times sqrt(s / 2); other modalities have weights of 1.
    """
    any_B = batch.present_MB.any(0)
    selection = select_items(batch, any_B)
    z_MND = batch.z_MBD if selection.index_N is None else batch.z_MBD[:, selection.index_N]
    present_MN = batch.present_MB if selection.index_N is None else batch.present_MB[:, selection.index_N]
    rank = {m: place for place, m in enumerate(value_order(list(z_MND)))} if selection.size else {}
    ordered = tuple(sorted(pair, key=lambda m: rank.get(m, m)) for pair in pairs)
    valid_PN = torch.stack([present_MN[m] & present_MN[n] for m, n in pairs])
    numbers = [float(tau.detach()) if isinstance(tau, Tensor) else tau for tau in temperatures]
    kernels = tuple(KernelFunction(kernel, tau) for tau in numbers)
    sums = PairSums(
        pairs=tuple((m, n) for m, n in ordered),
        kernels=kernels,
        features=tuple(_taken(similarity.get(name), selection.index_N) for name in batch.names),
        valid_PN=None if batch.complete else valid_PN,
        selection=selection,
    )
    rate_P = _rates(kernel, temperatures, z_MND)
    log_KN = weighted_log_sums(z_MND, sums, rate_P=rate_P)
    others_PN = _others(valid_PN, selection.codes_N)
    rows_PN, own_PN = valid_PN & (others_PN > 0), None
    if positive == "included":
        between_P1 = torch.tensor([[m != n] for m, n in sums.pairs], device=z_MND.device)
        rows_PN = torch.where(between_P1, valid_PN, rows_PN)
        own_PN = _own_logs(z_MND, sums, rate_P)
    pair_K = torch.tensor([p for p, _, _ in sums.directions], device=z_MND.device)
    within_K1 = torch.tensor([[m == n] for _, m, n in sums.directions], device=z_MND.device)
    value_KN = log_KN if own_PN is None else torch.where(within_K1, log_KN, torch.logaddexp(log_KN, own_PN[pair_K]))
    # The logarithm of a mean within a modality, of a sum between two.
    value_KN = value_KN - torch.where(within_K1, torch.log(others_PN.clamp(min=1))[pair_K], 0.0)
    sum_K = torch.where(rows_PN[pair_K], value_KN, 0.0).sum(1)
    count_P = rows_PN.sum(1)
    directions_P = torch.bincount(pair_K, minlength=len(pairs))
    value_P = sum_K.new_zeros(len(pairs)).index_add(0, pair_K, sum_K) / (directions_P * count_P).clamp(min=1)
    positive_P = torch.zeros_like(value_P)
    if own_PN is not None:
        positive_P = torch.where(rows_PN, own_PN, 0.0).sum(1) / count_P.clamp(min=1)
    return [Partition(*part) for part in zip(value_P, positive_P, (count_P > 0).tolist(), strict=True)]


def _own_logs(z_MND: Tensor, sums: PairSums, rate_P: Tensor | None) -> Tensor:
    """Return log kappa of the true pairs in float64, shape (P, N); 0 within a modality."""
    rows = []
    for p, (m, n) in enumerate(sums.pairs):
        if m == n:
            rows.append(z_MND.new_zeros(z_MND.shape[1], dtype=torch.float64))
            continue
        cosine_N = (z_MND[m] * z_MND[n]).sum(-1).double()
        rows.append(sums.kernels[p].log(cosine_N) if rate_P is None else rate_P[p].double() * (cosine_N - 1))
    return torch.stack(rows)


def _rates(kernel: Kernel, temperatures: Sequence[Tensor | float], like: Tensor) -> Tensor | None:
    """Rates of log kappa = rate (cos - 1) with their gradients; None if no temperature has a gradient."""
    if not any(isinstance(tau, Tensor) and tau.requires_grad for tau in temperatures):
        return None
    power = 1 if kernel == "clip" else 2
    taus = [torch.as_tensor(tau, dtype=torch.float64, device=like.device) for tau in temperatures]
    return torch.stack([tau.reshape(()) ** -power for tau in taus])


def _others(valid_PN: Tensor, codes_N: Tensor | None) -> Tensor:
    """|J_i| of each pair in float64."""
    count_P1 = valid_PN.sum(1, keepdim=True).double()
    if codes_N is None:
        return (count_P1 - 1).expand(valid_PN.shape)
    same_PN = [torch.bincount(codes_N, weights=valid_N.double())[codes_N.long()] for valid_N in valid_PN]
    return count_P1 - torch.stack(same_PN)


def _taken(x_BW: Tensor | None, index_N: Tensor | None) -> Tensor | None:
    return x_BW if x_BW is None or index_N is None else x_BW[index_N]
