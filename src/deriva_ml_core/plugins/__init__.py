"""Plugins: hooks, their manager, and the built-in plugins."""

from __future__ import annotations

from deriva_ml_core.plugins.manager import hookimpl, list_plugins, load_plugins, plugin_manager

__all__ = ["hookimpl", "list_plugins", "load_plugins", "plugin_manager"]
