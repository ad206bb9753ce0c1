"""Reference for generated images: true images, and scales computed from training images.

Shapes: `N` evaluated items, `T` training images, `S` pixels a side, `F` features, `C` principal components.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from unialign._checks import check_integer
from unialign.errors import DataError
from unialign.generation._distances import as_features
from unialign.generation._extractors import Extractor
from unialign.generation._images import check_images
from unialign.geometry import median_bandwidth

# Sum of the variances of the training components after scaling.
_VARIANCE = 100.0
# Lower bound of deviations, relative to their median. Features that hardly vary would dominate standardized distances,
# which KID cubes: without the bound two of 309 images widen the interval of a KID of 17 to [-12, 85].
_MIN_DEVIATION = 0.25


@dataclass(frozen=True, eq=False, repr=False)
class Reference:
    """True images of the evaluated items, and scales from training features, shared by all scores of a table.

    Attributes:
        extractor: name of the extractor.
        images: (N, 3, S, S) true images.
        features_NF: of the true images, float64.
        mean_F: of the training images' features.
        deviation_F: their deviations, at least a quarter of the median over features that vary.
        axes_FC: principal axes of the training features, scaled so that their variances along them sum to 100.
        bandwidth: of the MMD's kernel: median distance of the directions of two true images' features.
    """

    extractor: str
    images: Tensor
    features_NF: Tensor
    mean_F: Tensor
    deviation_F: Tensor
    axes_FC: Tensor
    bandwidth: float

    @classmethod
    def fit(cls, true: Any, training: Any, *, extractor: Extractor, components: int = 64) -> "Reference":
        """Compute features of the true images, and scales from features of the training images only.

        Args:
            true: (N, 3, S, S) in [0, 1], at least two; row i belongs to evaluated item i.
            training: images of training items; more than `components`.
            extractor: extractor of the features.
            components: number C of principal components.

        Raises:
            ShapeError, NonFiniteError: see `Extractor`; ShapeError also for a single true image.
            ConfigError: components is not an integer of at least 1.
            DataError: the training features vary in fewer than C directions.
        """
        check_integer("components", components, low=1)
        images, training = check_images(true, "true images"), check_images(training, "training images")
        true_NF = as_features(extractor(images), "features of the true images", min_rows=2)
        train_TF = as_features(extractor(training), "features of the training images", min_rows=2)
        mean_F = train_TF.mean(0)
        _, values_K, axes_KF = torch.linalg.svd(train_TF - mean_F, full_matrices=False)
        rank = int((values_K > 1e-7 * values_K.max()).sum())
        if rank < components:
            raise DataError(
                f"features of {len(train_TF)} training images by {extractor.name} vary in {rank} directions, fewer "
                f"than components={components}; set components to at most {rank}, or use more images"
            )
        variances_C = values_K[:components].square() / (len(train_TF) - 1)
        deviation_F = train_TF.std(0)
        varies_F = deviation_F > 1e-6 * deviation_F.max()
        return cls(
            extractor=extractor.name,
            images=images,
            features_NF=true_NF,
            mean_F=mean_F,
            deviation_F=deviation_F.clamp_min(_MIN_DEVIATION * float(deviation_F[varies_F].median())),
            axes_FC=axes_KF[:components].mT * (_VARIANCE / variances_C.sum()).sqrt(),
            bandwidth=median_bandwidth({"true images": true_NF - mean_F}),
        )

    def components(self, features_NF: Tensor) -> Tensor:
        """Return (N, C) principal components, for FD."""
        return (features_NF - self.mean_F) @ self.axes_FC

    def standardized(self, features_NF: Tensor) -> Tensor:
        """Return (N, F) features minus their mean, divided by `deviation_F`."""
        return (features_NF - self.mean_F) / self.deviation_F

    def directions(self, features_NF: Tensor) -> Tensor:
        """Return (N, F) unit rows of the features minus their training mean."""
        return normalize(features_NF - self.mean_F, dim=1)
