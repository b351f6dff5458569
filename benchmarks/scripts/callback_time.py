"""Time of the Lightning callback's hooks in the training's thread, with a slow or unreachable catalog.

``python -m benchmarks.scripts.callback_time <folder> <epochs> <steps> <seconds>``: `seconds` is the response time of
the catalog while the training runs, or ``down``.
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

from benchmarks.fixtures import execution_configuration, open_catalog
from benchmarks.scripts.model import Tiny, batches, create_trainer, write_figures
from deriva_ml import DerivaML
from deriva_ml_core.backend import Backend, Catalog
from deriva_ml_core.errors import CatalogUnavailable
from deriva_ml_core.models import Address
from deriva_ml_core.plugins import hookimpl, load_plugins
from deriva_ml_lightning import DerivaMLCallback


class SlowCatalogPlugin:
    """Plugin that delays each call of a catalog, or makes it fail.

    Args:
        seconds: The delay of each call; None to fail instead.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.is_active = False
        self.calls = 0
        self.training_calls = 0
        """Calls by the training's thread."""

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Generator[None, Backend, Backend]:  # noqa: ARG002 - pluggy requires the hook's argument
        """Wrap the catalog."""
        backend = yield
        return replace(backend, catalog=cast(Catalog, _SlowCatalog(backend.catalog, self)))

    def wait(self) -> None:
        """Delay a call, or fail."""
        if not self.is_active:
            return
        self.calls += 1
        self.training_calls += current_thread() is main_thread()
        if self.seconds is None:
            raise CatalogUnavailable("The benchmark simulates a catalog that is down.")
        sleep(self.seconds)


class _SlowCatalog:
    def __init__(self, catalog: object, plugin: SlowCatalogPlugin) -> None:
        self._catalog, self._plugin = catalog, plugin

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._catalog, name)
        if not callable(attribute):
            return attribute

        @wraps(attribute)
        def delayed(*args: Any, **kwargs: Any) -> Any:
            self._plugin.wait()
            return attribute(*args, **kwargs)

        return delayed


class HookTimer:
    """Sums the seconds of a callback's hooks by epoch, separately for the hooks of steps.

    Args:
        callback: The callback, whose hooks are replaced by timed ones.
        plugin: The plugin that slows the catalog down while epochs run.
    """

    def __init__(self, callback: Any, plugin: SlowCatalogPlugin) -> None:
        self.epochs: list[float] = []
        self.steps: list[float] = []
        self._plugin = plugin
        for name in dir(callback):
            if name.startswith("on_") and callable(getattr(callback, name)):
                setattr(callback, name, self._wrap(name, getattr(callback, name)))

    def _wrap(self, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(hook)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if name == "on_train_epoch_start":
                self._plugin.is_active = True
            elif name == "on_train_end":
                self._plugin.is_active = False  # the end of a fit may wait for the catalog
            start = perf_counter()
            try:
                return hook(*args, **kwargs)
            finally:
                self._add(name, perf_counter() - start)

        return timed

    def _add(self, name: str, seconds: float) -> None:
        if name == "on_train_epoch_start":
            self.epochs.append(0.0)
            self.steps.append(0.0)
        if not self.epochs or name in ("on_train_end", "on_fit_end"):
            return
        (self.steps if "batch" in name else self.epochs)[-1] += seconds


def main(folder: Path, epochs: int, steps: int, seconds: float | None) -> None:
    """Fit, and write the seconds of the hooks in each epoch and per step."""
    open_catalog(folder / "home").close()
    plugin, plugins = SlowCatalogPlugin(seconds), load_plugins({})
    plugins.register(plugin)
    with DerivaML(f"file:{folder / 'home'}", plugins=plugins).create_execution(execution_configuration()) as exe:
        callback = DerivaMLCallback(exe, checkpoints="none")
        timer = HookTimer(callback, plugin)
        create_trainer(folder, max_epochs=epochs, callbacks=[callback]).fit(Tiny(), batches(steps))
    write_figures(
        folder,
        epochs=timer.epochs[1:],  # the first opens files and starts threads
        first=timer.epochs[0],
        step=sum(timer.steps[1:]) / steps / (epochs - 1),
        calls=plugin.calls,
        training_calls=plugin.training_calls,
        last=monotonic(),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), None if sys.argv[4] == "down" else float(sys.argv[4]))
