"""What plugins are told, from one thread beside the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pluggy

from deriva_ml_core._concurrency.background_worker import BackgroundWorker
from deriva_ml_core.plugins.manager import notify

__all__ = ["DEFAULT_EXIT_TIMEOUT", "NotificationDispatcher"]

log = logging.getLogger(__name__)

DEFAULT_EXIT_TIMEOUT = 30.0
"""How long the end of a run waits for what is still under way beside it."""


class NotificationDispatcher:
    """Tells news to the plugins in order, without the run ever waiting for one of them.

    Args:
        plugins: Who listens.
    """

    def __init__(self, plugins: pluggy.PluginManager) -> None:
        self._plugins = plugins
        self._current_hook = ""
        self._worker = BackgroundWorker("deriva-ml-news")

    def has_listeners(self, hook: str) -> bool:
        """Whether anybody listens to a hook."""
        return bool(getattr(self._plugins.hook, hook).get_hookimpls())

    def notify(self, hook: str, arguments: Mapping[str, Any]) -> None:
        """Pass news on; it returns at once.

        Args:
            hook: The hook of class `News`.
            arguments: Its arguments by name, all frozen.
        """
        self._worker.submit(lambda: self._dispatch(hook, arguments))

    def drain(self, timeout: float) -> bool:
        """Wait until all that was told before has been heard.

        Args:
            timeout: How long at most.

        Returns:
            Whether it has.
        """
        if self._worker.drain(timeout):
            return True
        hook = getattr(self._plugins.hook, self._current_hook, None)
        listeners = ", ".join(answer.plugin_name for answer in hook.get_hookimpls()) if hook else "all"
        log.warning(
            "Plugins are still busy with news (%s: %s); they are not waited for.", self._current_hook, listeners
        )
        return False

    def _dispatch(self, hook: str, arguments: Mapping[str, Any]) -> None:
        self._current_hook = hook
        notify(self._plugins, hook, arguments)
