"""What ours takes of the training's thread, by its own hooks, on a catalog that answers sooner or later, or not at all.

``python -m benchmarks.contest.epochs <folder> <epochs> <steps> <seconds>``: `seconds` is how long each answer of the
catalog takes while the training runs; ``down`` where none comes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import wraps
from pathlib import Path
from threading import current_thread, main_thread
from time import monotonic, perf_counter, sleep
from typing import Any, cast

from benchmarks.contest.model import Tiny, batches, told, trainer
from benchmarks.places import configuration, open_catalog
from deriva_ml import DerivaML
from deriva_ml_core.backend import Backend, Catalog
from deriva_ml_core.errors import CatalogUnavailable
from deriva_ml_core.models import Address
from deriva_ml_core.plugins import hookimpl, load_plugins
from deriva_ml_lightning import DerivaMLCallback


class SlowCatalogs:
    """A plugin that puts a wait, or a failure, before each answer of a catalog.

    Args:
        seconds: How long each answer takes; None where none comes.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.slow = False
        self.asked = 0
        self.asked_by_training = 0

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Generator[None, Backend, Backend]:  # noqa: ARG002 - pluggy tells a hook by its arguments
        """Put it before the catalog."""
        backend = yield
        return replace(backend, catalog=cast(Catalog, _Slow(backend.catalog, self)))

    def wait(self) -> None:
        """Answer later, or not."""
        if not self.slow:
            return
        self.asked += 1
        self.asked_by_training += current_thread() is main_thread()
        if self.seconds is None:
            raise CatalogUnavailable("The catalog is down, as the benchmark asked for: try again later.")
        sleep(self.seconds)


class _Slow:
    def __init__(self, catalog: object, plugin: SlowCatalogs) -> None:
        self._catalog, self._plugin = catalog, plugin

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._catalog, name)
        if not callable(found):
            return found

        @wraps(found)
        def later(*given: Any, **named: Any) -> Any:
            self._plugin.wait()
            return found(*given, **named)

        return later


class Timed:
    """Adds up the seconds of a callback's hooks, by epoch; hooks of steps apart.

    Args:
        callback: Ours; its hooks are replaced by timed ones.
        plugin: The catalog is as slow as asked for while epochs run.
    """

    def __init__(self, callback: Any, plugin: SlowCatalogs) -> None:
        self.epochs: list[float] = []
        self.steps: list[float] = []
        self._plugin = plugin
        for name in dir(callback):
            if name.startswith("on_") and callable(getattr(callback, name)):
                setattr(callback, name, self._timed(name, getattr(callback, name)))

    def _timed(self, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(hook)
        def timed(*given: Any, **named: Any) -> Any:
            if name == "on_train_epoch_start":
                self._plugin.slow = True
            elif name == "on_train_end":
                self._plugin.slow = False  # what the end of a fit waits for is another question
            begun = perf_counter()
            try:
                return hook(*given, **named)
            finally:
                self._count(name, perf_counter() - begun)

        return timed

    def _count(self, name: str, seconds: float) -> None:
        if name == "on_train_epoch_start":
            self.epochs.append(0.0)
            self.steps.append(0.0)
        if not self.epochs or name in ("on_train_end", "on_fit_end"):
            return
        (self.steps if "batch" in name else self.epochs)[-1] += seconds


def main(folder: Path, epochs: int, steps: int, seconds: float | None) -> None:
    """Fit, and tell what the hooks took in each epoch, and of each step."""
    open_catalog(folder / "home").close()
    plugin, plugins = SlowCatalogs(seconds), load_plugins({})
    plugins.register(plugin)
    with DerivaML(f"file:{folder / 'home'}", plugins=plugins).create_execution(configuration()) as exe:
        callback = DerivaMLCallback(exe, checkpoints="none")
        timed = Timed(callback, plugin)
        trainer(folder, max_epochs=epochs, callbacks=[callback]).fit(Tiny(), batches(steps))
    told(
        folder,
        epochs=timed.epochs[1:],  # the first opens files and starts threads
        first=timed.epochs[0],
        step=sum(timed.steps[1:]) / steps / (epochs - 1),
        asked=plugin.asked,
        asked_by_training=plugin.asked_by_training,
        last=monotonic(),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), None if sys.argv[4] == "down" else float(sys.argv[4]))
