"""Model functions."""
