"""Training objectives: `nn.Module`s that map embeddings to a `LossOutput`, one public module per objective.

`names` does not import torch; `create` imports torch together with the objective.
"""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
