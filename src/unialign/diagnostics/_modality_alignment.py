"""One modality against the mean of those it should fit: does its order of rows hold from the first to the last?

A fault of one modality shows in every pair with it; against the mean of its peers it shows once, in that modality.

Shapes: `n` sampled items, `k` items looked at, `D` width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unialign.diagnostics._row_alignment import Order, closeness, order
from unialign.diagnostics._statistics import Sample

__all__ = ["measure_orders"]


def measure_orders(sample: Sample, pairs: Sequence[tuple[str, str]], *, seed: int) -> dict[tuple[str, ...], Order]:
    """The order of each modality against its peers in `pairs`; of two that have only each other, once for both."""
    peers: dict[str, list[str]] = {}
    for a, b in pairs:
        peers.setdefault(a, []).append(b)
        peers.setdefault(b, []).append(a)
    found: dict[tuple[str, ...], Order] = {}
    for name, others in peers.items():
        only = len(others) == 1 and len(peers[others[0]]) == 1
        key = tuple(n for n in sample.z if n == name or (only and n in others))
        if key not in found:
            found[key] = _order(sample, name, others, seed=seed)
    return found


def _order(sample: Sample, name: str, peers: Sequence[str], *, seed: int) -> Order:
    count_n = torch.stack([sample.usable[peer] for peer in peers]).sum(0)
    alone_n = torch.from_numpy(~np.any([_repeats(sample, m) for m in (name, *peers)], axis=0))
    at_k = (sample.usable[name] & (count_n > 0) & alone_n).nonzero().flatten()
    if len(at_k) < 2:
        return order(np.empty(0), np.empty(0), np.empty(0))
    mean_kD = torch.stack([_centred(sample, peer) for peer in peers]).sum(0)[at_k] / count_n[at_k, None]
    close_k = closeness(sample.z[name][at_k], mean_kD, sample.ids_n[at_k.numpy()], seed=seed)
    cosines = torch.stack([(sample.z[name][at_k] * sample.z[peer][at_k]).sum(1) for peer in peers]).sum(0)
    return order(sample.rows_n[at_k.numpy()], (cosines / count_n[at_k]).numpy(), close_k)


def _centred(sample: Sample, name: str) -> Tensor:
    """(n, D) rows less their mean; 0 where there is no row."""
    usable_n1 = sample.usable[name][:, None]
    mean_D = sample.z[name].sum(0) / usable_n1.sum().clamp(min=1)
    return torch.where(usable_n1, sample.z[name] - mean_D, 0.0)


def _repeats(sample: Sample, name: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(n,) whether an item's row is also another item's: such rows fit several items and tell none from the others."""
    _, of_n = np.unique(sample.hashes[name], return_inverse=True)
    low_n, high_n = np.full(int(of_n.max()) + 1, len(of_n)), np.full(int(of_n.max()) + 1, -1)
    _, id_n = np.unique(sample.ids_n, return_inverse=True)
    np.minimum.at(low_n, of_n, id_n)
    np.maximum.at(high_n, of_n, id_n)
    repeats_n: np.ndarray[tuple[int], np.dtype[np.bool_]] = sample.usable[name].numpy() & (low_n < high_n)[of_n]
    return repeats_n
