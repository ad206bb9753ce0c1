from unialign.space._space import Space as Space, evaluating as evaluating
from unialign.space._whitening import Whitening as Whitening, check_frozen as check_frozen

__all__ = ["Space", "Whitening"]
