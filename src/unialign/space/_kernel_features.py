"""Kernel features of a modality: principal components of a Gaussian kernel with ridge weights.

Shapes: `B` rows, `L` landmarks, `W` dimension of a modality, `r` features.
"""

import torch
from torch import Tensor, nn

from unialign.errors import ConfigError
from unialign.ops import product_dtype
from unialign.space._kernel_basis import KernelBasis, gaussian_kernel


class KernelFeatures(nn.Module):
    """Map standardized rows (B, W) to kernel features (B, r).

    A feature is f_j = sqrt(n) s_j^2 / (s_j^2 + regularization n) v_j(x), where s_j^2 are the eigenvalues of the
    centered kernel matrix of the n rows, and v_j(x) is the entry of the j-th left singular vector for the row x. A
    linear head with weights V'G on these features is the kernel ridge regression of the targets G, up to the factor
    sqrt(n). All tensors are buffers.
    """

    landmarks: Tensor
    bandwidth: Tensor
    offset: Tensor
    weight: Tensor

    def __init__(self, in_dim: int, landmarks: int, dim: int, *, is_fitted: bool) -> None:
        super().__init__()
        self.is_fitted = is_fitted
        self.register_buffer("landmarks", torch.zeros(landmarks, in_dim))
        self.register_buffer("bandwidth", torch.ones(()))
        self.register_buffer("offset", torch.zeros(landmarks))
        self.register_buffer("weight", torch.zeros(landmarks, dim))

    @property
    def sizes(self) -> tuple[int, int]:
        return len(self.landmarks), self.weight.shape[1]

    def forward(self, x_BW: Tensor) -> Tensor:
        if not self.is_fitted:
            raise ConfigError(
                "the kernel features of this space have no landmarks; call `fit_normalizer` with training rows first, "
                "or load a saved space"
            )
        # The weights amplify rounding, so neither autocast nor TF32 may lower the precision of the products.
        dtype = self.landmarks.dtype
        if dtype == torch.float32:
            dtype = product_dtype(x_BW.device, x_BW.shape[1])
        with torch.autocast(x_BW.device.type, enabled=False):
            kernel_BL = gaussian_kernel(x_BW.to(dtype), self.landmarks.to(dtype), self.bandwidth)
            return ((kernel_BL - self.offset) @ self.weight.to(dtype)).to(self.weight.dtype)

    @torch.no_grad()
    def set_basis(self, basis: KernelBasis, regularization: float) -> None:
        scale_r = basis.ridge_weights(regularization) * basis.rows**0.5
        like = self.weight
        self.landmarks, self.offset = basis.landmarks_LW.to(like), basis.offset_L.to(like)
        self.bandwidth = torch.tensor(basis.bandwidth).to(like)
        self.weight = (basis.components_Lr * scale_r).to(like)
        self.is_fitted = True
