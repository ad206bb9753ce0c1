"""Speed, memory and exactness of the losses: `python -m benchmarks.speed`."""
