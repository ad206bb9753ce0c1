"""Self-contained HTML reports of comparisons, diagnoses and generated images, and summaries as plain text."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
