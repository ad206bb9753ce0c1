from unialign.embedding._batch import BatchTask as BatchTask, PreparedBatch as PreparedBatch
from unialign.embedding._choices import chosen_encoders as chosen_encoders
from unialign.embedding._embed import embed as embed, embed_with as embed_with
from unialign.embedding._finished import finished_features as finished_features
from unialign.embedding._local import chosen_workers as chosen_workers, encoder_threads as encoder_threads
from unialign.embedding._make_plan import limits_of as limits_of
from unialign.embedding._outcome import EmbedOutcome as EmbedOutcome
from unialign.embedding._part_file import BrokenCell as BrokenCell
from unialign.embedding._plan import Plan as Plan
from unialign.embedding._prepare import ColumnWork as ColumnWork
from unialign.embedding._prepared_cells import prepared_cells as prepared_cells
from unialign.embedding._preparer import Preparer as Preparer

__all__ = ["embed"]
