"""Measure the costs of this software against baselines: ``python -m benchmarks [name…] [--json FILE]``."""
