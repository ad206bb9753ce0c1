"""Metrics of tasks (retrieval, nearest neighbors, clustering), bootstrap intervals and significance."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
