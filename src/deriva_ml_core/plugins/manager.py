"""Who answers hooks: the built-ins first, then what is installed, and how news reaches them."""

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
"""Marks a function as the answer to the hook of its name."""

DEFAULT_PLUGINS = ("connect", "environment", "source_script", "source_notebook", "source_container")
"""The built-ins, in order: pluggy asks the last one first."""

DISABLED_PLUGINS_VARIABLE = "DERIVA_ML_DISABLED_PLUGINS"
"""The environment variable that blocks plugins by name, separated by commas."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PluginDescription:
    """A plugin by name, the distribution that it came with (None for a built-in), and the hooks that it answers."""

    name: str
    distribution: str | None
    hooks: tuple[str, ...]


@cache
def plugin_manager() -> pluggy.PluginManager:
    """The plugins of this process, loaded once: built-ins, then entry points of the group ``deriva_ml``.

    Raises:
        PluginError: A plugin cannot be imported, or names a hook that does not exist.
    """
    return load_plugins(os.environ)


def load_plugins(environ: Mapping[str, str]) -> pluggy.PluginManager:
    """Make a new plugin manager; `plugin_manager` is this with the process's own environment."""
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
                f"The plugin {name!r} cannot be used: {error}. "
                f"Mend or uninstall it, or block it with {DISABLED_PLUGINS_VARIABLE}={name}."
            ) from error
    return manager


def _installed_plugin_names() -> list[str]:
    # imported here, since nothing else that `import deriva_ml` loads needs it
    from importlib.metadata import entry_points

    return sorted(entry.name for entry in entry_points(group=hookspecs.PROJECT))


def _load_plugin(manager: pluggy.PluginManager, name: str) -> None:
    if manager.has_plugin(name):
        raise ValueError("another plugin has that name already")
    manager.load_setuptools_entrypoints(hookspecs.PROJECT, name)
    manager.check_pending()
    if manager.is_blocked(name):
        return
    answers = [answer for answer in _iter_implementations(manager) if answer[1].plugin_name == name]
    if not answers:
        log.warning("The plugin %r answers no hook: mark its functions with deriva_ml_core.plugins.hookimpl.", name)
    for caller, answer in answers:
        question = caller.spec is not None and caller.spec.opts["firstresult"]
        # a wrapper is run around all the others, and so could silence them
        if not question and (answer.wrapper or answer.hookwrapper):
            raise ValueError(f"it wraps {caller.name}, and only a question may be wrapped")


def _iter_implementations(manager: pluggy.PluginManager) -> Iterator[tuple[pluggy.HookCaller, pluggy.HookImpl]]:
    for caller in vars(manager.hook).values():
        for answer in caller.get_hookimpls():
            yield caller, answer


def list_plugins(manager: pluggy.PluginManager | None = None) -> list[PluginDescription]:
    """Say who is registered, in the order of registration.

    Args:
        manager: The plugins to list; the process's own by default.
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
    """Tell news to every listener; one that fails is logged by name and the others still hear it."""
    for answer in _ordered_implementations(manager, hook):
        try:
            answer.function(*(arguments[name] for name in answer.argnames))
        except (Exception, SystemExit):
            log.warning("Plugin %r failed at %s; the run goes on without it.", answer.plugin_name, hook, exc_info=True)


def collect(manager: pluggy.PluginManager, hook: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Ask every plugin for its part; one that fails is logged by name and left out.

    Returns:
        What each plugin answered, by its name.
    """
    given = {}
    for answer in _ordered_implementations(manager, hook):
        try:
            part = answer.function(*(arguments[name] for name in answer.argnames))
        except (Exception, SystemExit):
            log.warning("Plugin %r failed at %s; its part is left out.", answer.plugin_name, hook, exc_info=True)
        else:
            if part is not None:
                given[answer.plugin_name] = part
    return given


def _ordered_implementations(manager: pluggy.PluginManager, hook: str) -> list[pluggy.HookImpl]:
    # pluggy's own call stops at the first exception, so each listener is called by itself
    caller: pluggy.HookCaller = getattr(manager.hook, hook)
    return list(reversed(caller.get_hookimpls()))
