"""Benchmarks: scripts whose JSON results the documentation shows. Run one with `python -m benchmarks.NAME`."""
