"""What this software costs, each subject beside its floor: ``python -m benchmarks [name…] [--json FILE]``."""
