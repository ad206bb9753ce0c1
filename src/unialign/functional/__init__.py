"""The mathematics as pure functions on tensors. Rows are normalised inside; shapes are in each docstring."""

from unialign.functional._alignment import alignment
from unialign.functional._centroid import centroids
from unialign.functional._uniformity import uniformity
from unialign.functional._volume import gram_volume

__all__ = ["alignment", "centroids", "gram_volume", "uniformity"]
