from unialign.readers._arrays import MatchedRows as MatchedRows, Rows as Rows
from unialign.readers._formats import open_file as open_file, store_file as store_file
from unialign.readers._types import Entry as Entry, File as File

__all__ = []
