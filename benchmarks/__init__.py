"""What the core promises, measured: ``python -m benchmarks.run``."""
