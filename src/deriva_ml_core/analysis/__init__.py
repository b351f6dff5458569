"""Questions about recorded runs: list, describe, compare, trace, verify, reproduce."""
