"""Data sets, weights and tuned settings that unialign loads by name."""

from pathlib import Path

__all__ = ["FOLDER"]

FOLDER = Path(__file__).parent
