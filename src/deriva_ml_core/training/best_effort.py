"""What goes wrong with a training's record is warned about, and never ends the training."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["log_failure"]

log = logging.getLogger(__name__)


@contextmanager
def log_failure(task: str) -> Iterator[None]:
    """Log what goes wrong instead of raising it.

    Args:
        task: What was to be done, as it follows "Could not".
    """
    try:
        yield
    except Exception:
        log.warning("Could not %s; the training goes on.", task, exc_info=True)
