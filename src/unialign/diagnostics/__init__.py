"""What is wrong with these embeddings? Anybody's files, in words first, then in numbers."""

from unialign.diagnostics._diagnose import DiagnosisReport, diagnose
from unialign.diagnostics._finding import Finding

__all__ = ["DiagnosisReport", "Finding", "diagnose"]
