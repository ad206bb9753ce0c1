"""Leading eigenvectors of large positive semidefinite matrices, in float64.

Shapes: `n` size of the matrix, `r` eigenvectors, `k` vectors of the Krylov space, `b` vectors of a block.
"""

import torch
from torch import Tensor

# Eigenvalues below this fraction of the largest are rounding errors.
_LEAST_EIGENVALUE = 1e-10
# Krylov methods are faster than a complete decomposition if the size of the matrix is above `_LARGE` and at most the
# fraction `_LARGEST_FRACTION` of the eigenvectors is needed.
_LARGE, _LARGEST_FRACTION = 2000, 0.15
_BLOCK, _BLOCKS_PER_TEST = 64, 4
# Maximum norm of the residual A v - w v, relative to the largest eigenvalue.
_TOLERANCE = 1e-7


def leading_eigenvectors(matrix_nn: Tensor, *, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalues of a positive semidefinite matrix, descending, and their eigenvectors.

    Eigenvalues that are rounding errors are left out. The entry with the largest magnitude in each eigenvector is
    positive.

    Args:
        most: maximum number of eigenvalues.
    """
    size = len(matrix_nn)
    found = None
    if most is not None and size > _LARGE and most <= _LARGEST_FRACTION * size:
        found = _krylov(matrix_nn, most)
    if found is None:
        values_n, vectors_nn = torch.linalg.eigh(matrix_nn)
        found = values_n.flip(0)[:most], vectors_nn.flip(1)[:, :most]
    values_r, vectors_nr = found
    rank = int((values_r > _LEAST_EIGENVALUE * values_r[0]).sum()) if float(values_r[0]) > 0 else 0
    values_r, vectors_nr = values_r[:rank], vectors_nr[:, :rank]
    if rank == 0:
        return values_r, vectors_nr
    largest_r = vectors_nr.abs().argmax(0)
    return values_r, vectors_nr * vectors_nr[largest_r, torch.arange(rank)].sign()


def _krylov(matrix_nn: Tensor, most: int) -> tuple[Tensor, Tensor] | None:
    """Apply the block Lanczos method with complete orthogonalization (Golub, Van Loan 2013, "Matrix computations",
    section 10.3.6). Return None if it does not converge within n / 2 vectors.
    """
    size = len(matrix_nn)
    limit = size // 2
    basis_nk, image_nk = torch.empty(2, size, limit, dtype=matrix_nn.dtype)
    generator = torch.Generator().manual_seed(0)
    block_nb = torch.linalg.qr(torch.randn(size, _BLOCK, generator=generator, dtype=matrix_nn.dtype))[0]
    for number, start in enumerate(range(0, limit - _BLOCK + 1, _BLOCK), start=1):
        filled = start + _BLOCK
        basis_nk[:, start:filled] = block_nb
        block_nb = matrix_nn @ block_nb
        image_nk[:, start:filled] = block_nb
        known_nk = basis_nk[:, :filled]
        if filled >= 2 * most and number % _BLOCKS_PER_TEST == 0:
            projected_kk = known_nk.mT @ image_nk[:, :filled]
            values_k, vectors_kk = torch.linalg.eigh((projected_kk + projected_kk.mT) / 2)
            values_r, vectors_kr = values_k.flip(0)[:most], vectors_kk.flip(1)[:, :most]
            vectors_nr = known_nk @ vectors_kr
            residual_r = (image_nk[:, :filled] @ vectors_kr - vectors_nr * values_r).norm(dim=0)
            if bool((residual_r <= _TOLERANCE * values_r[0]).all()):
                return values_r, vectors_nr
        for _ in range(2):
            block_nb = block_nb - known_nk @ (known_nk.mT @ block_nb)
        block_nb = torch.linalg.qr(block_nb)[0]
    return None
