"""What is wrong with these embeddings? Anybody's files, in words first, then in numbers."""

from unialign.checkup._checkup import Checkup, diagnose
from unialign.checkup._finding import Finding

__all__ = ["Checkup", "Finding", "diagnose"]
