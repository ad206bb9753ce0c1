from unialign.inspection._inspect import Inspection as Inspection, inspect as inspect

__all__ = ["Inspection", "inspect"]
