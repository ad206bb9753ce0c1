from unialign.items._broken_cells import broken_cell_records as broken_cell_records
from unialign.items._cell_text import CellSequence as CellSequence
from unialign.items._columns import SPLITS as SPLITS
from unialign.items._duplicates import (
    content_codes as content_codes,
    joined_groups as joined_groups,
    normalized_text as normalized_text,
    text_codes as text_codes,
)
from unialign.items._items import Items as Items
from unialign.items._source import with_source as with_source

__all__ = ["Items"]
