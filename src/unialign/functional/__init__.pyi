from unialign.functional._alignment import (
    Distance as Distance,
    StopGradient as StopGradient,
    alignment as alignment,
    matched_alignment_scale as matched_alignment_scale,
    unit_alignment as unit_alignment,
)
from unialign.functional._block_losses import (
    block_contrasts as block_contrasts,
    block_sigmoids as block_sigmoids,
    block_uniformities as block_uniformities,
)
from unialign.functional._block_symile import block_symile as block_symile
from unialign.functional._centroid import (
    centroids as centroids,
    unit_centroids as unit_centroids,
    unit_or_zero as unit_or_zero,
)
from unialign.functional._contrast import cosine_contrast as cosine_contrast, self_contrast as self_contrast
from unialign.functional._density import (
    log_densities as log_densities,
    log_mean_exp as log_mean_exp,
    mean_neighbors as mean_neighbors,
    median_bandwidth_of as median_bandwidth_of,
)
from unialign.functional._divergence import (
    Estimator as Estimator,
    exact_sizes as exact_sizes,
    holder_of_rows as holder_of_rows,
    unit_cauchy_schwarz as unit_cauchy_schwarz,
    unit_holder as unit_holder,
    unit_mmd2 as unit_mmd2,
)
from unialign.functional._log_partition import (
    cross_log_partition as cross_log_partition,
    cross_log_potential as cross_log_potential,
)
from unialign.functional._order_free_sum import order_free_sum as order_free_sum
from unialign.functional._orthonormal_rows import orthonormal_rows as orthonormal_rows
from unialign.functional._sigmoid import sigmoid_contrast as sigmoid_contrast
from unialign.functional._singular_values import singular_parts as singular_parts
from unialign.functional._symile import symile_all as symile_all, symile_sampled as symile_sampled
from unialign.functional._tuple_contrast import area_contrast as area_contrast, volume_contrast as volume_contrast
from unialign.functional._uniformity import (
    Reduction as Reduction,
    log_potential as log_potential,
    uniformity as uniformity,
    unit_uniformity as unit_uniformity,
)
from unialign.functional._volume import gram_volume as gram_volume, unit_volumes as unit_volumes
from unialign.functional._weighted_partitions import (
    Partition as Partition,
    PartitionPositive as PartitionPositive,
    weighted_partitions as weighted_partitions,
)

__all__ = [
    "Distance",
    "Estimator",
    "Partition",
    "PartitionPositive",
    "Reduction",
    "StopGradient",
    "alignment",
    "area_contrast",
    "centroids",
    "cosine_contrast",
    "cross_log_partition",
    "cross_log_potential",
    "gram_volume",
    "log_potential",
    "matched_alignment_scale",
    "self_contrast",
    "sigmoid_contrast",
    "singular_parts",
    "symile_all",
    "symile_sampled",
    "uniformity",
    "unit_alignment",
    "unit_cauchy_schwarz",
    "unit_centroids",
    "unit_holder",
    "unit_mmd2",
    "unit_uniformity",
    "unit_volumes",
    "volume_contrast",
    "weighted_partitions",
]
