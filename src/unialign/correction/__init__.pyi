from unialign.correction._apply_store import repair_collection as repair_collection
from unialign.correction._candidates import measure_candidates as measure_candidates
from unialign.correction._csls import local_similarity as local_similarity, neighbors as neighbors
from unialign.correction._fit import repair as repair
from unialign.correction._given import fit_given as fit_given, with_few_rows as with_few_rows
from unialign.correction._layers import METHODS as METHODS, MIN_ROWS as MIN_ROWS
from unialign.correction._repair import Repair as Repair
from unialign.correction._results import make_results as make_results
from unialign.correction._rows import ItemRows as ItemRows

__all__ = ["Repair", "repair"]
