from unialign.diagnostics._diagnose import diagnose as diagnose
from unialign.diagnostics._drift_report import DriftReport as DriftReport, make_drift_results as make_drift_results
from unialign.diagnostics._drift_verdict import Verdict as Verdict
from unialign.diagnostics._finding import Finding as Finding
from unialign.diagnostics._report import DiagnosisReport as DiagnosisReport
from unialign.diagnostics._results import make_results as make_results
from unialign.diagnostics._suspicious_item import (
    SuspicionKind as SuspicionKind,
    SuspiciousItem as SuspiciousItem,
    SuspiciousItems as SuspiciousItems,
)
from unialign.diagnostics._suspicious_items import (
    items_compared as items_compared,
    suspicious_items as suspicious_items,
)

__all__ = [
    "DiagnosisReport",
    "DriftReport",
    "Finding",
    "SuspiciousItem",
    "SuspiciousItems",
    "Verdict",
    "diagnose",
    "suspicious_items",
]
