"""The command line: one module per command, each with `run(options) -> int`."""
