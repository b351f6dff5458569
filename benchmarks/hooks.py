"""Time of hook calls and of loading plugins."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pluggy

from benchmarks.figures import Figure, comparison_figure
from benchmarks.fixtures import execution_configuration, open_catalog
from benchmarks.scale import Scale
from benchmarks.timing import compare, repeat_calls
from deriva_ml import DerivaML, Execution, Status
from deriva_ml_core.hookspecs import PROJECT
from deriva_ml_core.models import ExecutionInfo, StatusUpdate
from deriva_ml_core.plugins import hookimpl, load_plugins
from deriva_ml_core.plugins.manager import notify


class Listener:
    """Plugin that receives every status and does nothing."""

    @hookimpl
    def status_changed(self, execution: ExecutionInfo, update: StatusUpdate) -> None:
        """Do nothing."""


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time a notification of one plugin, status updates with a listener, and the loading of all plugins."""
    listener, plugins = Listener(), load_plugins({})
    plugins.register(listener)
    with (
        _create_execution(folder / "unheard", load_plugins({})) as unheard,
        _create_execution(folder / "heard", plugins) as heard,
    ):
        update = StatusUpdate(status=Status.running, time=unheard.start_time)
        info, many = unheard.info, 100 * scale.calls
        arguments = {"execution": info, "update": update}
        yield comparison_figure(
            "notify one plugin",
            "a call of the plugin's function",
            compare(
                repeat_calls(lambda _: notify(plugins, "status_changed", arguments), many),
                repeat_calls(lambda _: listener.status_changed(info, update), many),
                scale.rounds,
            ),
        )
        yield comparison_figure(
            "update_status with a listening plugin",
            "update_status without one",
            compare(
                repeat_calls(lambda number: heard.update_status(Status.running, f"Step {number}"), scale.calls),
                repeat_calls(lambda number: unheard.update_status(Status.running, f"Step {number}"), scale.calls),
                scale.rounds,
            ),
        )
    yield comparison_figure(
        "load all plugins",
        "one search for entry points",
        compare(
            repeat_calls(lambda _: load_plugins({}), scale.calls),
            repeat_calls(lambda _: entry_points(group=PROJECT), scale.calls),
            scale.rounds,
        ),
    )


def _create_execution(folder: Path, plugins: pluggy.PluginManager) -> Execution:
    open_catalog(folder).close()
    return DerivaML(f"file:{folder}", plugins=plugins).create_execution(execution_configuration())
