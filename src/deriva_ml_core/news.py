"""What plugins are told, from one thread beside the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pluggy

from deriva_ml_core.plugins import announce
from deriva_ml_core.worker import Worker

__all__ = ["DRAIN_SECONDS", "NewsThread"]

log = logging.getLogger(__name__)

DRAIN_SECONDS = 30.0
"""How long the end of a run waits for what is still under way beside it."""


class NewsThread:
    """Tells news to the plugins in order, without the run ever waiting for one of them.

    Args:
        plugins: Who listens.
    """

    def __init__(self, plugins: pluggy.PluginManager) -> None:
        self._plugins = plugins
        self._present = ""
        self._worker = Worker("deriva-ml-news")

    def is_heard(self, hook: str) -> bool:
        """Whether anybody listens to a hook."""
        return bool(getattr(self._plugins.hook, hook).get_hookimpls())

    def tell(self, hook: str, arguments: Mapping[str, Any]) -> None:
        """Pass news on; it returns at once.

        Args:
            hook: The hook of class `News`.
            arguments: Its arguments by name, all frozen.
        """
        self._worker.submit(lambda: self._announce(hook, arguments))

    def drain(self, seconds: float) -> bool:
        """Wait until all that was told before has been heard.

        Args:
            seconds: How long at most.

        Returns:
            Whether it has.
        """
        if self._worker.drain(seconds):
            return True
        hook = getattr(self._plugins.hook, self._present, None)
        listeners = ", ".join(answer.plugin_name for answer in hook.get_hookimpls()) if hook else "all"
        log.warning("Plugins are still busy with news (%s: %s); they are not waited for.", self._present, listeners)
        return False

    def _announce(self, hook: str, arguments: Mapping[str, Any]) -> None:
        self._present = hook
        announce(self._plugins, hook, arguments)
