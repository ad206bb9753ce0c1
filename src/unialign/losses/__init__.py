"""Training objectives: `nn.Module`s that take a mapping of embeddings and return a `LossOutput`.

`names` and `create` work without importing torch until an objective is made.
"""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
