"""Scripts that benchmarks run in new processes to measure trackers in single fits."""
