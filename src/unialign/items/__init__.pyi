from unialign.items._cell_text import CellSequence as CellSequence
from unialign.items._items import Items as Items

__all__ = ["Items"]
