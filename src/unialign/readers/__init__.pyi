from unialign.readers._collection import (
    Collection as Collection,
    Modality as Modality,
    collect as collect,
    first_appearance_codes as first_appearance_codes,
)
from unialign.readers._entry import ArrayEntry as ArrayEntry, EmbeddingFile as EmbeddingFile, Reader as Reader
from unialign.readers._expand import is_pattern as is_pattern, open_sources as open_sources
from unialign.readers._ids import ids_beside as ids_beside
from unialign.readers._item_records import (
    Folders as Folders,
    ItemOptions as ItemOptions,
    ItemReader as ItemReader,
    ItemRecords as ItemRecords,
    Layout as Layout,
    kind_of_name as kind_of_name,
)
from unialign.readers._item_source import is_item_source as is_item_source
from unialign.readers._open import open_file as open_file
from unialign.readers._read_items import read_items as read_items
from unialign.readers._rows import FileRegion as FileRegion, MatchedRows as MatchedRows, Rows as Rows

__all__ = [
    "ArrayEntry",
    "EmbeddingFile",
    "FileRegion",
    "ItemOptions",
    "ItemReader",
    "ItemRecords",
    "Reader",
    "Rows",
    "open_file",
    "read_items",
]
