"""Names that a package re-exports and imports on first use, so that importing the package costs little."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]], fallback: Callable[[str], Any] | None = None
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__all__``, ``__getattr__`` and ``__dir__`` of a package that imports its names on first use (PEP 562).

    A stub file ``__init__.pyi`` next to the package's module imports the same names for type checkers.

    Args:
        package: The package's ``__name__``.
        modules: The names that each module defines.
        fallback: Resolves other names, such as deprecated ones. By default they raise ``AttributeError``.
    """
    sources = {name: module for module, names in modules.items() for name in names}

    def resolve(name: str) -> Any:
        if (module := sources.get(name)) is not None:
            value = getattr(import_module(module), name)
            setattr(sys.modules[package], name, value)  # later accesses find it without this function
            return value
        if fallback is not None:
            return fallback(name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    names = sorted(sources, key=str.casefold)
    return names, resolve, lambda: sorted({*vars(sys.modules[package]), *names})
