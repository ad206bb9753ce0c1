from unialign._plain_text import count as count, join_words as join_words
from unialign.report._bridge import write_bridge_report as write_bridge_report
from unialign.report._diagnosis import write_diagnosis_report as write_diagnosis_report
from unialign.report._drift import write_drift_report as write_drift_report
from unialign.report._format import (
    DASH as DASH,
    NumberFormat as NumberFormat,
    number_format as number_format,
)
from unialign.report._generation import write_generation_report as write_generation_report
from unialign.report._gram import write_gram_report as write_gram_report
from unialign.report._inspection import write_inspection_report as write_inspection_report
from unialign.report._omni import write_omni_report as write_omni_report
from unialign.report._page import write_report as write_report
from unialign.report._plot import (
    Plot as Plot,
    plot_cosines as plot_cosines,
    plot_map as plot_map,
    plot_recall as plot_recall,
)
from unialign.report._probe import write_probe_report as write_probe_report
from unialign.report._ranking import write_ranking_report as write_ranking_report
from unialign.report._repair import write_repair_report as write_repair_report
from unialign.report._summary import text_table as text_table, verdict_lines as verdict_lines
from unialign.report._svg import (
    color as color,
    group as group,
    line as line,
    num as num,
    polyline as polyline,
    shape as shape,
    shortened as shortened,
    svg as svg,
    tag as tag,
    text as text,
    ticks as ticks,
)
from unialign.report._template import fill as fill
from unialign.report._tuning import write_tuning_report as write_tuning_report

__all__ = [
    "Plot",
    "text_table",
    "verdict_lines",
    "write_bridge_report",
    "write_diagnosis_report",
    "write_drift_report",
    "write_generation_report",
    "write_gram_report",
    "write_inspection_report",
    "write_omni_report",
    "write_probe_report",
    "write_ranking_report",
    "write_repair_report",
    "write_report",
    "write_tuning_report",
]
