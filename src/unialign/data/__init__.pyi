from unialign._datasets import list_datasets as list_datasets
from unialign.data._combinations import combinations as combinations, combinations_of as combinations_of
from unialign.data._derive import derive_store as derive_store
from unialign.data._encoder_fingerprint import encoder_fingerprint as encoder_fingerprint
from unialign.data._item_identity import (
    are_row_numbers as are_row_numbers,
    item_ids as item_ids,
    item_keys as item_keys,
    unique_keys as unique_keys,
)
from unialign.data._item_values import label_codes as label_codes
from unialign.data._license import data_license as data_license
from unialign.data._load import load_dataset as load_dataset
from unialign.data._mixture import Mixture as Mixture
from unialign.data._row_blocks import RowReader as RowReader, row_blocks as row_blocks
from unialign.data._sampling import Sampling as Sampling
from unialign.data._sources import Sources as Sources, open_collection as open_collection
from unialign.data._split import random_split as random_split
from unialign.data._store import EmbeddingStore as EmbeddingStore
from unialign.data._streamed_asset import StreamedAsset as StreamedAsset
from unialign.data._thumbnail_archive import thumbnail_archive as thumbnail_archive
from unialign.data._thumbnails import THUMBNAILS as THUMBNAILS, Thumbnails as Thumbnails
from unialign.data._without import without_items as without_items
from unialign.data._write import Overwrite as Overwrite
from unialign.items import Items as Items

__all__ = [
    "EmbeddingStore",
    "Items",
    "Mixture",
    "encoder_fingerprint",
    "list_datasets",
    "load_dataset",
    "random_split",
    "without_items",
]
