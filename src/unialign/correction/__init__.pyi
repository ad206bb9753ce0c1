from unialign.correction._fit import repair as repair
from unialign.correction._repair import Repair as Repair
from unialign.correction._results import make_results as make_results

__all__ = ["Repair", "repair"]
