"""Deprecated names: old public names keep working for one minor version and warn."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from operator import attrgetter
from typing import Any, ParamSpec, TypeVar

from deriva_ml_core._frames import user_stacklevel

__all__ = [
    "REMOVED_IN",
    "DerivaMLDeprecationWarning",
    "deprecated_attributes",
    "deprecated_keywords",
    "deprecated_names",
    "warn_deprecated",
]

REMOVED_IN = "0.3.0"
"""The version that removes the names deprecated in 0.2."""

P = ParamSpec("P")
R = TypeVar("R")


class DerivaMLDeprecationWarning(DeprecationWarning):
    """The category of warnings about renamed names; Python shows them in ``__main__`` and in tests only."""


def warn_deprecated(old: str, new: str) -> None:
    """Warn, at the user's line, that a name was renamed."""
    message = f"{old} is deprecated and will be removed in {REMOVED_IN}; use {new}."
    try:
        warnings.warn(message, DerivaMLDeprecationWarning, stacklevel=user_stacklevel())
    except Warning:  # a filter of the user makes it an error
        raise
    except Exception:  # noqa: BLE001 - standard error is closed, or an object that raises anything
        return


def deprecated_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` that resolves old names.

    Args:
        module: The module's ``__name__``.
        names: The new name of each old one; both belong to the module.
    """

    def resolve(name: str) -> Any:
        if (new := names.get(name)) is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warn_deprecated(f"{module}.{name}", new)
        return getattr(sys.modules[module], new)

    return resolve


def deprecated_attributes(names: Mapping[str, str | tuple[str, Callable[[Any], Any]]]) -> Callable[[Any, str], Any]:
    """Return a class's ``__getattr__`` that resolves old attributes; ``dir`` does not list them.

    Define it under ``if not TYPE_CHECKING``: with ``__getattr__``, a type checker accepts any attribute.

    Args:
        names: For each old name, the new one; or the replacement as text and a function of the instance.
    """

    def resolve(self: Any, name: str) -> Any:
        if (new := names.get(name)) is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        text, get = (new, attrgetter(new)) if isinstance(new, str) else new
        warn_deprecated(f"{type(self).__name__}.{name}", text)
        return get(self)

    return resolve


def deprecated_keywords(names: Mapping[str, str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator of a function that also takes old keywords.

    Args:
        names: The new name of each old keyword.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in names.keys() & kwargs.keys():
                if names[old] in kwargs:
                    raise TypeError(f"{function.__qualname__}() got both {old!r} and its new name {names[old]!r}")
                warn_deprecated(f"The keyword {old!r} of {function.__qualname__}()", repr(names[old]))
                kwargs[names[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate
