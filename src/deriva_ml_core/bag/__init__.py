"""The bag that a dataset's download gives: built from a snapshot, kept in a cache, read without a catalog."""

from __future__ import annotations

from deriva_ml_core.bag.reading import DatasetBag

__all__ = ["DatasetBag"]
