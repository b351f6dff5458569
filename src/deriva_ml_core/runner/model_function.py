"""The model function that a configuration names: where it is written, and whether it takes what it is given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from deriva_ml_core.errors import ConfigurationError

__all__ = ["INJECTED_ARGUMENTS", "check_function", "function_file", "function_name", "is_model_function"]

INJECTED_ARGUMENTS = ("ml_instance", "execution")
"""The two keyword arguments that a model function gets beside its own parameters."""


def check_function(function: object, config_name: str = "model_config") -> None:
    """See that a model function can be called with ``ml_instance`` and ``execution``.

    Args:
        function: What a configuration's ``model_config`` was instantiated to.
        config_name: What that configuration is called, for the message.

    Raises:
        ConfigurationError: It cannot; the message says where it is written.
    """
    if not callable(function):
        raise ConfigurationError(
            f"The config {config_name} makes {_describe_value(function)}, which cannot be called: build the model "
            f"function with "
            "zen_partial=True, so that it is called when its execution is there."
        )
    if missing := _missing_arguments(function):
        file = function_file(function)
        raise ConfigurationError(
            f"The model function {function_name(function)} of the config {config_name}"
            f"{f', in {file},' if file else ''} does not take {' and '.join(missing)}: a model function gets "
            "ml_instance, the client, and execution, its own execution, beside its own parameters."
        )


def is_model_function(function: object) -> bool:
    """Whether something is itself a model function, with parameters ``ml_instance`` and ``execution`` by name."""
    return (
        inspect.isroutine(function)
        and not _missing_arguments(function)
        and INJECTED_ARGUMENTS[0] in inspect.signature(function).parameters
    )


def _missing_arguments(function: Callable[..., Any]) -> list[str]:
    """Those of the two arguments that a function does not take."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of a function that is written in C, nobody knows
        return []
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return []
    named = {name for name, each in parameters.items() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    return [name for name in INJECTED_ARGUMENTS if name not in named]


def function_file(function: object) -> Path | None:
    """The file that a model function, or its class, is written in; None where it is in no Python file."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(_unwrap_partial(function)))
    except TypeError:
        return None
    return Path(file).absolute() if file else None


def function_name(function: object) -> str:
    """A model function's full name."""
    bare = _unwrap_partial(function)
    return f"{bare.__module__}.{bare.__qualname__}"


def _unwrap_partial(function: Any) -> Callable[..., Any]:
    """The function in its wrappings of parameters; the class of an object that is called."""
    while isinstance(function, partial):
        function = function.func
    return function if hasattr(function, "__qualname__") else type(function)


def _describe_value(value: object) -> str:
    return "a mapping" if isinstance(value, Mapping) else f"an object of class {type(value).__name__}"
