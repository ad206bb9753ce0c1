"""Many processes: one batch that lies on all of them.

`with unialign.distributed.init():` in a script that torchrun or SLURM starts is all that a training needs; losses find
the processes by themselves.
"""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
