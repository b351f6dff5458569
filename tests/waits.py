"""The bound of waits for another process or thread."""

from __future__ import annotations

__all__ = ["HANG"]

HANG = 1000.0
"""Seconds after which a test fails instead of being killed by its own timeout, which is 1,200 s in pyproject.toml.

A wait ends with what it waits for, so the bound costs nothing. A shorter one would fail on a machine with a high load.
"""
