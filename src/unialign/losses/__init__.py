"""Training objectives: `nn.Module`s that map embeddings to a `LossOutput`, one public module per objective.

`names` imports no torch; `create` imports it with the objective.
"""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
