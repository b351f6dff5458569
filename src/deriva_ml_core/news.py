"""What plugins are told, from one thread beside the run."""

from __future__ import annotations

import logging
import os
import queue
from collections.abc import Mapping
from threading import Event, Thread
from typing import Any

import pluggy

from deriva_ml_core.forklock import ForkLock
from deriva_ml_core.plugins import announce

__all__ = ["DRAIN_SECONDS", "NewsThread"]

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
"""How long the end of a run waits for plugins that are still busy with earlier news."""


class NewsThread:
    """Tells news to the plugins in order, without the run ever waiting for one of them.

    Args:
        plugins: Who listens.
        patience: Seconds that `drain` waits at most.
    """

    def __init__(self, plugins: pluggy.PluginManager, patience: float = DRAIN_SECONDS) -> None:
        self._plugins = plugins
        self._patience = patience
        self._lock = ForkLock()
        self._pid = 0
        self._present = ""
        self._waiting: queue.SimpleQueue[tuple[str, Mapping[str, Any]] | Event] = queue.SimpleQueue()

    def is_heard(self, hook: str) -> bool:
        """Whether anybody listens to a hook."""
        return bool(getattr(self._plugins.hook, hook).get_hookimpls())

    def tell(self, hook: str, arguments: Mapping[str, Any]) -> None:
        """Pass news on; it returns at once.

        Args:
            hook: The hook of class `News`.
            arguments: Its arguments by name, all frozen.
        """
        self._start()
        self._waiting.put((hook, arguments))

    def drain(self) -> bool:
        """Wait until all that was told before has been heard, as long as the patience lasts.

        Returns:
            Whether it has.
        """
        if self._pid != os.getpid():
            return True
        heard = Event()
        self._waiting.put(heard)
        if heard.wait(self._patience):
            return True
        hook = getattr(self._plugins.hook, self._present, None)
        listeners = ", ".join(answer.plugin_name for answer in hook.get_hookimpls()) if hook else "all"
        log.warning(
            "After %g seconds plugins are still busy with news (%s: %s); they are not waited for.",
            self._patience,
            self._present,
            listeners,
        )
        return False

    def _start(self) -> None:
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid != os.getpid():  # the first news of this process, or of a child that a fork made
                self._waiting = queue.SimpleQueue()
                Thread(target=self._run, args=(self._waiting,), name="deriva-ml-news", daemon=True).start()
                self._pid = os.getpid()

    def _run(self, waiting: queue.SimpleQueue[tuple[str, Mapping[str, Any]] | Event]) -> None:
        while True:
            item = waiting.get()
            if isinstance(item, Event):
                item.set()
            else:
                self._present = item[0]
                announce(self._plugins, *item)
