"""Training on several processes with one batch sharded over all of them.

Training requires only `with unialign.distributed.init():` in a script started by torchrun or SLURM; losses detect the
process group.
"""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
