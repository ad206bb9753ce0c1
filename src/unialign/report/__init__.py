"""Self-contained HTML pages about results, and what they say as plain text.

`write_report` is about a comparison of objectives, `write_diagnosis_report` about embeddings that somebody has.
"""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
