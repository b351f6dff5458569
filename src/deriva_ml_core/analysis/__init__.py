"""Questions about recorded runs: list, describe, compare, trace, verify and reproduce them.

Each question is a method of `deriva_ml_core.DerivaML`; the modules of this package hold the answers' types.
"""
