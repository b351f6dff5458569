"""Sends notifications to plugins from a background thread."""

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
"""Maximum seconds to wait on exit for background writes and plugins."""


class NotificationDispatcher:
    """Notifies plugins in order, without blocking the run.

    Args:
        plugins: The plugins to notify.
    """

    def __init__(self, plugins: pluggy.PluginManager) -> None:
        self._plugins = plugins
        self._current_hook = ""
        self._worker = BackgroundWorker("deriva-ml-notifications")

    def has_listeners(self, hook: str) -> bool:
        """Whether any plugin implements a hook."""
        return bool(getattr(self._plugins.hook, hook).get_hookimpls())

    def notify(self, hook: str, arguments: Mapping[str, Any]) -> None:
        """Queue a notification and return at once.

        Args:
            hook: Name of a hook of `NotificationHooks`.
            arguments: Its arguments by name; all values are frozen.
        """
        self._worker.submit(lambda: self._dispatch(hook, arguments))

    def drain(self, timeout: float) -> bool:
        """Wait until all queued notifications are delivered.

        Args:
            timeout: Maximum seconds to wait.

        Returns:
            Whether all were delivered.
        """
        if self._worker.drain(timeout):
            return True
        hook = getattr(self._plugins.hook, self._current_hook, None)
        listeners = ", ".join(implementation.plugin_name for implementation in hook.get_hookimpls()) if hook else "all"
        log.warning(
            "Plugins did not finish in time (%s: %s); the run ends without waiting for them.",
            self._current_hook,
            listeners,
        )
        return False

    def _dispatch(self, hook: str, arguments: Mapping[str, Any]) -> None:
        self._current_hook = hook
        notify(self._plugins, hook, arguments)
