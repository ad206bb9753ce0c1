"""Training on several processes: one batch that is sharded over all of them.

`with unialign.distributed.init():` in a script started by torchrun or SLURM is all that training needs; losses detect
the processes.
"""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
