"""Log failures of the record, so that they never end a training."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["log_failure"]

log = logging.getLogger(__name__)


@contextmanager
def log_failure(task: str) -> Iterator[None]:
    """Log an exception as a warning instead of raising it.

    Args:
        task: The task as an imperative phrase, which follows "Failed to" in the message.
    """
    try:
        yield
    except Exception:
        log.warning("Failed to %s; training continues.", task, exc_info=True)
