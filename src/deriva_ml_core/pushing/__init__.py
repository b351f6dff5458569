"""Executions copied from one catalog to another, whole, with what they were made from and what they made."""

from __future__ import annotations

from deriva_ml_core.pushing.push import push
from deriva_ml_core.pushing.report import PushedRow, PushReport

__all__ = ["PushReport", "PushedRow", "push"]
