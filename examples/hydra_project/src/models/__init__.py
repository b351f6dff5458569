"""The model functions."""
