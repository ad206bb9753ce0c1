"""`Space`: one head per modality into one unit sphere, with saving and loading that never runs foreign code."""

from unialign.space._frame import Frame, Framing
from unialign.space._heads import Head
from unialign.space._inputs import Inputs
from unialign.space._space import Space

__all__ = ["Frame", "Framing", "Head", "Inputs", "Space"]
