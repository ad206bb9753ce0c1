"""Compare results of a CUDA device with float64, and measure its speed."""
