"""Benchmark speed, memory and accuracy of the losses: `python -m benchmarks.speed`."""
