"""Module paths of version 0.1 that stay importable, since files name them: pickles, hydra configs, commands of runs.

An import system's finder resolves them when nothing else does, so that they cost nothing otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType

__all__ = ["MOVED_MODULES", "install_finder"]

MOVED_MODULES: Mapping[str, str] = MappingProxyType(
    {
        "deriva_ml_core.bag": "deriva_ml_core.datasets",
        "deriva_ml_core.bag.reading": "deriva_ml_core.datasets.bag",
        "deriva_ml_core.dataset": "deriva_ml_core.datasets",
        "deriva_ml_core.dataset.versions": "deriva_ml_core.datasets.versions",
        "deriva_ml_core.execution.live": "deriva_ml_core.execution.execution",
        "deriva_ml_core.execution.provenance": "deriva_ml_core.execution.recorded",
        "deriva_ml_core.pushing": "deriva_ml_core.push",
        "deriva_ml_core.pushing.report": "deriva_ml_core.push.context",
        "deriva_ml_core.runner.command": "deriva_ml_core.runner.cli",
        "deriva_ml_core.runner.model": "deriva_ml_core.runner.model_run",
        "deriva_ml_core.runner.notebook.command": "deriva_ml_core.runner.notebook.cli",
        "deriva_ml_core.runner.settings": "deriva_ml_core.runner.connection_config",
    }
)
"""The new path of each old one."""


def install_finder() -> None:
    """Make old module paths importable in this process."""
    if not any(isinstance(finder, _MovedModuleFinder) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModuleFinder())  # no subclass of importlib.abc.Loader, whose import costs 5 ms


class _MovedModuleFinder:
    """Finds an old path as a module whose attributes are those of the new one."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - as Python calls it
        target: ModuleType | None = None,  # noqa: ARG002 - as Python calls it
    ) -> ModuleSpec | None:
        is_package = any(name.startswith(f"{fullname}.") for name in MOVED_MODULES)
        return ModuleSpec(fullname, self, is_package=is_package) if fullname in MOVED_MODULES else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python create an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        new = import_module(MOVED_MODULES[module.__name__])
        module.__getattr__ = lambda name: getattr(new, name)  # type: ignore[method-assign]
