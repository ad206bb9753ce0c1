from unialign.diagnostics._diagnose import DiagnosisReport as DiagnosisReport, diagnose as diagnose
from unialign.diagnostics._finding import Finding as Finding
from unialign.diagnostics._results_json import make_results as make_results

__all__ = ["DiagnosisReport", "Finding", "diagnose"]
