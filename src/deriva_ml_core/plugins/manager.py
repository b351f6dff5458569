"""Loads plugins and calls hooks: built-ins are registered first, then installed plugins."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import pluggy

from deriva_ml_core import hookspecs
from deriva_ml_core.errors import PluginError

__all__ = [
    "DEFAULT_PLUGINS",
    "PluginDescription",
    "notify",
    "collect",
    "hookimpl",
    "list_plugins",
    "load_plugins",
    "plugin_manager",
]

hookimpl = pluggy.HookimplMarker(hookspecs.PROJECT)
"""Marks a function as the implementation of the hook of its name."""

DEFAULT_PLUGINS = ("connect", "environment", "source_script", "source_notebook", "source_container")
"""The built-in plugins in order of registration; pluggy calls the last one first."""

DISABLED_PLUGINS_VARIABLE = "DERIVA_ML_DISABLED_PLUGINS"
"""Environment variable with the names of disabled plugins, separated by commas."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PluginDescription:
    """A plugin: its name, its distribution (None for a built-in), and the hooks that it implements."""

    name: str
    distribution: str | None
    hooks: tuple[str, ...]


@cache
def plugin_manager() -> pluggy.PluginManager:
    """Return the plugins of this process, loaded once: built-ins, then entry points of the group ``deriva_ml``.

    Raises:
        PluginError: A plugin cannot be imported, or implements a hook that does not exist.
    """
    return load_plugins(os.environ)


def load_plugins(environ: Mapping[str, str]) -> pluggy.PluginManager:
    """Create a plugin manager; `plugin_manager` calls this with the process's environment.

    Args:
        environ: Environment variables; ``DERIVA_ML_DISABLED_PLUGINS`` names the disabled plugins.

    Raises:
        PluginError: A plugin cannot be imported, or implements a hook that does not exist.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    for spec in (hookspecs.FirstResultHooks, hookspecs.CollectHooks, hookspecs.NotificationHooks):
        manager.add_hookspecs(spec)
    for name in filter(None, (name.strip() for name in environ.get(DISABLED_PLUGINS_VARIABLE, "").split(","))):
        manager.set_blocked(name)
    for name in DEFAULT_PLUGINS:
        manager.register(import_module(f"deriva_ml_core.plugins.builtin.{name}"), name)
    for name in _installed_plugin_names():
        try:
            _load_plugin(manager, name)
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"Cannot load the plugin {name!r}: {error}. "
                f"Fix or uninstall it, or disable it with {DISABLED_PLUGINS_VARIABLE}={name}."
            ) from error
    return manager


def _installed_plugin_names() -> list[str]:
    # imported here, since nothing else that `import deriva_ml` loads needs it
    from importlib.metadata import entry_points

    return sorted(entry.name for entry in entry_points(group=hookspecs.PROJECT))


def _load_plugin(manager: pluggy.PluginManager, name: str) -> None:
    if manager.has_plugin(name):
        raise ValueError("another plugin has that name")
    manager.load_setuptools_entrypoints(hookspecs.PROJECT, name)
    manager.check_pending()
    if manager.is_blocked(name):
        return
    implementations = [pair for pair in _iter_implementations(manager) if pair[1].plugin_name == name]
    if not implementations:
        log.warning("The plugin %r implements no hook: mark functions with deriva_ml_core.plugins.hookimpl.", name)
    for caller, implementation in implementations:
        is_first_result = caller.spec is not None and caller.spec.opts["firstresult"]
        # a wrapper runs around all other implementations and could suppress them
        if not is_first_result and (implementation.wrapper or implementation.hookwrapper):
            raise ValueError(f"it wraps {caller.name}, but only first-result hooks can be wrapped")


def _iter_implementations(manager: pluggy.PluginManager) -> Iterator[tuple[pluggy.HookCaller, pluggy.HookImpl]]:
    for caller in vars(manager.hook).values():
        for implementation in caller.get_hookimpls():
            yield caller, implementation


def list_plugins(manager: pluggy.PluginManager | None = None) -> list[PluginDescription]:
    """List the registered plugins in order of registration.

    Args:
        manager: The plugin manager; that of the process by default.
    """
    manager = manager or plugin_manager()
    distributions = {id(plugin): dist.project_name for plugin, dist in manager.list_plugin_distinfo()}
    return [
        PluginDescription(name, distributions.get(id(plugin)), tuple(sorted(_implemented_hooks(manager, plugin))))
        for name, plugin in manager.list_name_plugin()
        if plugin is not None
    ]


def _implemented_hooks(manager: pluggy.PluginManager, plugin: object) -> Iterator[str]:
    return (caller.name for caller in manager.get_hookcallers(plugin) or ())


def notify(manager: pluggy.PluginManager, hook: str, arguments: Mapping[str, Any]) -> None:
    """Call a notification hook of every plugin; a plugin that fails is logged and the others are still called."""
    for implementation in _ordered_implementations(manager, hook):
        try:
            implementation.function(*(arguments[name] for name in implementation.argnames))
        except (Exception, SystemExit):
            log.warning("Plugin %r failed in %s; the run continues.", implementation.plugin_name, hook, exc_info=True)


def collect(manager: pluggy.PluginManager, hook: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Call a collected hook of every plugin; a plugin that fails is logged and left out.

    Returns:
        The results by plugin name.
    """
    results = {}
    for implementation in _ordered_implementations(manager, hook):
        try:
            result = implementation.function(*(arguments[name] for name in implementation.argnames))
        except (Exception, SystemExit):
            name = implementation.plugin_name
            log.warning("Plugin %r failed in %s; its result is left out.", name, hook, exc_info=True)
        else:
            if result is not None:
                results[implementation.plugin_name] = result
    return results


def _ordered_implementations(manager: pluggy.PluginManager, hook: str) -> list[pluggy.HookImpl]:
    # pluggy's own call stops at the first exception, so each implementation is called separately
    caller: pluggy.HookCaller = getattr(manager.hook, hook)
    return list(reversed(caller.get_hookimpls()))
