from unialign.diagnostics._diagnose import diagnose as diagnose
from unialign.diagnostics._finding import Finding as Finding
from unialign.diagnostics._report import DiagnosisReport as DiagnosisReport
from unialign.diagnostics._results import make_results as make_results

__all__ = ["DiagnosisReport", "Finding", "diagnose"]
