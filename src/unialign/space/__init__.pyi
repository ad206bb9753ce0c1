from unialign.config import Head as Head, InputNorm as InputNorm, WhiteningMode as WhiteningMode
from unialign.space._space import Space as Space
from unialign.space._whitening import Whitening as Whitening, check_frozen as check_frozen

__all__ = ["Head", "InputNorm", "Space", "Whitening", "WhiteningMode"]
