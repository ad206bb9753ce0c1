"""Reference implementations of objectives and divergences in float64 loops over modalities, items and pairs.

The tests compare values and gradients with these functions, which share no code with the library and do not validate
input. "Decision N" refers to convention N in docs/architecture.md.
"""

from reference._core import (
    alignment,
    centroids,
    cross_partitions,
    cross_volumes,
    gram,
    gram_volumes,
    infonce,
    log_kernel,
    log_weights_of,
    share_within,
    symmetric_contrast,
    unialign,
    uniformity,
)
from reference._densities import (
    cauchy_schwarz,
    effective_neighbors,
    gaussian_mass,
    gcsd,
    holder,
    holder_upper_bound,
    median_bandwidth,
    mmd2,
)
from reference._fused import fused_term, prefixes
from reference._negatives import infonce_of_queries
from reference._pairs import align_uniform, cs_aligner, cua, modgap, sigmoid
from reference._rows import Ids, Presence, Rows, mean, tuple_of, unit_rows
from reference._tuples import (
    cross_areas,
    pmrl,
    singular_values,
    symile_all,
    symile_sampled,
    triangle,
)

__all__ = [
    "Ids",
    "Presence",
    "Rows",
    "align_uniform",
    "alignment",
    "cauchy_schwarz",
    "centroids",
    "cross_areas",
    "cross_partitions",
    "cross_volumes",
    "cs_aligner",
    "cua",
    "effective_neighbors",
    "fused_term",
    "gaussian_mass",
    "gcsd",
    "gram",
    "gram_volumes",
    "holder",
    "holder_upper_bound",
    "infonce",
    "infonce_of_queries",
    "log_kernel",
    "log_weights_of",
    "mean",
    "median_bandwidth",
    "mmd2",
    "modgap",
    "pmrl",
    "prefixes",
    "share_within",
    "sigmoid",
    "singular_values",
    "symile_all",
    "symile_sampled",
    "symmetric_contrast",
    "triangle",
    "tuple_of",
    "unialign",
    "uniformity",
    "unit_rows",
]
