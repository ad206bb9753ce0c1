"""Training on several processes, with each batch sharded over all of them.

Run the training inside `with unialign.distributed.init():` in a script started by torchrun or SLURM; losses detect the
process group.
"""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
