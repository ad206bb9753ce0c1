"""Random parts of a mixed pool: the modality of each gallery row, and noisy copies of rows.

Shapes: `M` modalities, `N` items, `n` rows of a modality, `D` dimension.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Number of random rows that are mixed into the noise of a row.
_TERMS = 8


def draw_modalities(present_MN: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
    """Draw a modality for each item. Among items with the same mask, each modality is drawn equally often."""
    rng = np.random.default_rng(seed)
    patterns, pattern_N = np.unique(present_MN, axis=1, return_inverse=True)
    drawn_N = np.empty(present_MN.shape[1], np.int64)
    for p in range(patterns.shape[1]):
        rows = np.flatnonzero(pattern_N.reshape(-1) == p)
        modalities = rng.permutation(np.flatnonzero(patterns[:, p]))
        drawn_N[rng.permutation(rows)] = modalities[np.arange(len(rows)) % len(modalities)]
    return drawn_N


def noisy_copies(z_MND: Tensor, present_MN: Tensor, similarity: float, seed: int) -> Tensor:
    """Return unit rows whose cosine with the given rows is `similarity` after subtraction of the mean. The noise is a
    random combination of centered rows, so it has the covariance of the modality. Rows that equal the mean are copied
    without noise.
    """
    copies_MND = z_MND.clone()
    for m, present_N in enumerate(present_MN):
        rows_n = present_N.nonzero().flatten()
        if not len(rows_n):
            continue
        rng = np.random.default_rng([seed, m])
        z_nD = z_MND[m, rows_n]
        mean_D = z_nD.mean(0)
        centered_nD = z_nD - mean_D
        length_n1 = torch.linalg.vector_norm(centered_nD, dim=1, keepdim=True)
        u_nD = centered_nD / length_n1.clamp(min=1e-300)
        noise_nD = torch.zeros_like(z_nD)
        for _ in range(_TERMS):
            order_n = torch.from_numpy(rng.permutation(len(rows_n))).to(z_nD.device)
            noise_nD += torch.from_numpy(rng.standard_normal((len(rows_n), 1))).to(z_nD) * centered_nD[order_n]
        noise_nD -= (noise_nD * u_nD).sum(1, keepdim=True) * u_nD
        size_n1 = torch.linalg.vector_norm(noise_nD, dim=1, keepdim=True)
        direction_nD = similarity * u_nD + (1 - similarity**2) ** 0.5 * noise_nD / size_n1.clamp(min=1e-300)
        copy_nD = mean_D + length_n1 * direction_nD
        norm_n1 = torch.linalg.vector_norm(copy_nD, dim=1, keepdim=True)
        usable_n1 = (length_n1 > 1e-9) & (size_n1 > 1e-9) & (norm_n1 > 1e-9)
        copies_MND[m, rows_n] = torch.where(usable_n1, copy_nD / norm_n1.clamp(min=1e-300), z_nD)
    return copies_MND
