"""Check a CUDA device against float64, and measure it."""
