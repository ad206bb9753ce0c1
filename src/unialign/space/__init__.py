"""`Space`: one head per modality into one unit sphere, with saving and loading that never runs foreign code."""

from unialign.space._heads import Head
from unialign.space._normalizer import Inputs
from unialign.space._space import Space
from unialign.space._whitening import Whitening, WhiteningMode

__all__ = ["Head", "Inputs", "Space", "Whitening", "WhiteningMode"]
