"""Threads, locks and background work."""
