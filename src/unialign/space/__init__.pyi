from unialign.space._heads import Head as Head
from unialign.space._normalizer import Inputs as Inputs
from unialign.space._space import Space as Space
from unialign.space._whitening import (
    Whitening as Whitening,
    WhiteningMode as WhiteningMode,
    check_frozen as check_frozen,
)

__all__ = ["Head", "Inputs", "Space", "Whitening", "WhiteningMode"]
