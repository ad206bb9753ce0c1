from unialign.migration._bridge import Bridge as Bridge
from unialign.migration._build import bridge as bridge, fit_candidates as fit_candidates
from unialign.migration._inputs import RowSource as RowSource, open_rows as open_rows
from unialign.migration._interval import OverlapInterval as OverlapInterval
from unialign.migration._level import Level as Level
from unialign.migration._plan import plan as plan
from unialign.migration._replace import ReplacedEncoder as ReplacedEncoder, replace_encoder as replace_encoder
from unialign.migration._search import SearchResult as SearchResult

__all__ = [
    "Bridge",
    "Level",
    "OverlapInterval",
    "ReplacedEncoder",
    "SearchResult",
    "bridge",
    "plan",
    "replace_encoder",
]
