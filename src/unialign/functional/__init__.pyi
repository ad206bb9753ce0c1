from unialign.functional._alignment import (
    Distance as Distance,
    StopGradient as StopGradient,
    alignment as alignment,
    unit_alignment as unit_alignment,
)
from unialign.functional._centroid import (
    centroids as centroids,
    unit_centroids as unit_centroids,
    unit_or_zero as unit_or_zero,
)
from unialign.functional._contrast import cosine_contrast as cosine_contrast, self_contrast as self_contrast
from unialign.functional._density import (
    SelfPairs as SelfPairs,
    log_densities as log_densities,
    log_mean_exp as log_mean_exp,
    mean_neighbours as mean_neighbours,
    median_bandwidth_of as median_bandwidth_of,
)
from unialign.functional._divergence import (
    Estimator as Estimator,
    exact_sizes as exact_sizes,
    holder_of_rows as holder_of_rows,
    shard_layout as shard_layout,
    unit_cauchy_schwarz as unit_cauchy_schwarz,
    unit_holder as unit_holder,
    unit_mmd2 as unit_mmd2,
)
from unialign.functional._kernels import matched_alignment_scale as matched_alignment_scale
from unialign.functional._log_partition import (
    cross_log_partition as cross_log_partition,
    cross_log_potential as cross_log_potential,
)
from unialign.functional._sigmoid import sigmoid_contrast as sigmoid_contrast
from unialign.functional._singular_values import singular_parts as singular_parts
from unialign.functional._symile import (
    all_contrasts as all_contrasts,
    all_contrasts_bytes as all_contrasts_bytes,
    draw_permutations as draw_permutations,
    sampled_contrasts as sampled_contrasts,
)
from unialign.functional._tuple_contrast import area_contrast as area_contrast, volume_contrast as volume_contrast
from unialign.functional._uniformity import (
    Reduction as Reduction,
    log_potential as log_potential,
    modality_log_potentials as modality_log_potentials,
    uniformity as uniformity,
    unit_uniformity as unit_uniformity,
)
from unialign.functional._volume import (
    determinant_and_adjugate as determinant_and_adjugate,
    gram_volume as gram_volume,
    masked_gram as masked_gram,
    unit_volumes as unit_volumes,
    volume_floor as volume_floor,
)

__all__ = ["alignment", "centroids", "gram_volume", "uniformity"]
