"""What it costs that plugins are asked and told."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pluggy

from benchmarks.figures import Figure, compared
from benchmarks.measure import beside, calls
from benchmarks.places import configuration, open_catalog
from benchmarks.scale import Scale
from deriva_ml import DerivaML, Execution, Status
from deriva_ml_core.hookspecs import PROJECT
from deriva_ml_core.models import ExecutionInfo, StatusUpdate
from deriva_ml_core.plugins import hookimpl, load_plugins
from deriva_ml_core.plugins.manager import notify


class Listener:
    """Hears every status and does nothing."""

    @hookimpl
    def status_changed(self, execution: ExecutionInfo, update: StatusUpdate) -> None:
        """Hear it."""


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time news told to one plugin, a question, the loading of all plugins, and a status that somebody hears."""
    listener, plugins = Listener(), load_plugins({})
    plugins.register(listener)
    with _execution(folder / "silent", load_plugins({})) as silent, _execution(folder / "heard", plugins) as heard:
        update = StatusUpdate(status=Status.running, time=silent.start_time)
        record, many = silent.info, 100 * scale.calls
        told = {"execution": record, "update": update}
        yield compared(
            "news told to one plugin",
            "the plugin's function called",
            beside(
                calls(lambda _: notify(plugins, "status_changed", told), many),
                calls(lambda _: listener.status_changed(record, update), many),
                scale.rounds,
            ),
        )
        yield compared(
            "update_status with a plugin that hears it",
            "the same with none",
            beside(
                calls(lambda number: heard.update_status(Status.running, f"Step {number}"), scale.calls),
                calls(lambda number: silent.update_status(Status.running, f"Step {number}"), scale.calls),
                scale.rounds,
            ),
        )
    yield compared(
        "all plugins loaded",
        "one look for entry points",
        beside(
            calls(lambda _: load_plugins({}), scale.calls),
            calls(lambda _: entry_points(group=PROJECT), scale.calls),
            scale.rounds,
        ),
    )


def _execution(folder: Path, plugins: pluggy.PluginManager) -> Execution:
    open_catalog(folder).close()
    return DerivaML(f"file:{folder}", plugins=plugins).create_execution(configuration())
