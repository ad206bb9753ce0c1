"""Benchmark scripts with JSON results for the documentation; run one with `python -m benchmarks.NAME`."""
