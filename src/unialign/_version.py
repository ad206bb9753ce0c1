"""Package version; the build also reads this file."""

__all__ = ["__version__"]

__version__ = "0.1.0"
