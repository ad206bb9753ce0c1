from unialign.embedding._batch import BatchTask as BatchTask, PreparedBatch as PreparedBatch
from unialign.embedding._embed import embed as embed, embed_with as embed_with
from unialign.embedding._outcome import EmbedOutcome as EmbedOutcome
from unialign.embedding._part_file import BrokenCell as BrokenCell
from unialign.embedding._plan import Plan as Plan
from unialign.embedding._prepare import ColumnWork as ColumnWork
from unialign.embedding._prepared_cells import prepared_cells as prepared_cells
from unialign.embedding._preparer import Preparer as Preparer

__all__ = ["embed"]
