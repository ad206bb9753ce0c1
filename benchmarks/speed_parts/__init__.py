"""What `benchmarks/speed.py` is made of: inputs, contestants, exact values, one measurement, requirements, the page."""
