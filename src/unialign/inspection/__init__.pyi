from unialign.inspection._duplicates import (
    content_codes as content_codes,
    joined_groups as joined_groups,
    normalized_text as normalized_text,
    text_codes as text_codes,
)
from unialign.inspection._inspect import Inspection as Inspection, inspect as inspect

__all__ = ["Inspection", "inspect"]
