"""Imports on first use: of the names that a package re-exports, and of optional dependencies."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

__all__ = ["lazy_names", "require_extra"]


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


@contextmanager
def require_extra(extra: str, subject: str) -> Iterator[None]:
    """Turn a missing package that the block imports into an error that names the extra.

    Args:
        extra: The extra of this distribution that installs the package: ``deriva``.
        subject: What needs it, as the subject of the message: ``A catalog on a Deriva server``.

    Raises:
        MissingDependency: The package is not installed.
    """
    from deriva_ml_core._frames import is_own_module
    from deriva_ml_core.errors import MissingDependency

    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or is_own_module(error.name):
            raise
        package = error.name.partition(".")[0]
        raise MissingDependency(
            f"{subject} needs the package {package!r}: run pip install 'deriva-ml-core[{extra}]'."
        ) from error
