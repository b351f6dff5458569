"""Inspect the model function of a configuration: its name, its file, and whether it accepts the injected arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.paths import to_absolute_path

__all__ = ["INJECTED_ARGUMENTS", "check_function", "function_file", "function_name", "is_model_function"]

INJECTED_ARGUMENTS = ("ml_instance", "execution")
"""The keyword arguments that a model function receives in addition to its own parameters."""


def check_function(function: object, config_name: str = "model_config") -> None:
    """Check that a model function can be called with ``ml_instance`` and ``execution``.

    Args:
        function: The instantiated ``model_config``.
        config_name: The name of the config, for the error message.

    Raises:
        ConfigurationError: The object is not callable, or does not accept the two arguments.
    """
    if not callable(function):
        raise ConfigurationError(
            f"The config {config_name} builds {_describe_value(function)}, which is not callable. Build the model "
            "function with zen_partial=True, so that it is called once its execution exists."
        )
    if missing := _missing_arguments(function):
        file = function_file(function)
        raise ConfigurationError(
            f"The model function {function_name(function)}{f' in {file}' if file else ''} (config {config_name}) "
            f"does not accept {' and '.join(missing)}. Add the keyword parameters ml_instance (the client) and "
            "execution (the running execution)."
        )


def is_model_function(function: object) -> bool:
    """Whether an object is a function with the named parameters ``ml_instance`` and ``execution``."""
    return (
        inspect.isroutine(function)
        and not _missing_arguments(function)
        and INJECTED_ARGUMENTS[0] in inspect.signature(function).parameters
    )


def _missing_arguments(function: Callable[..., Any]) -> list[str]:
    """Return the injected arguments that a function does not accept."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # functions written in C may have no signature
        return []
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return []
    keyword_kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    accepted = {name for name, parameter in parameters.items() if parameter.kind in keyword_kinds}
    return [name for name in INJECTED_ARGUMENTS if name not in accepted]


def function_file(function: object) -> Path | None:
    """Return the source file of a model function or its class; None if it has no Python source file."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(_unwrap_partial(function)))
    except TypeError:
        return None
    return to_absolute_path(file) if file else None


def function_name(function: object) -> str:
    """Return the full name of a model function."""
    unwrapped = _unwrap_partial(function)
    return f"{unwrapped.__module__}.{unwrapped.__qualname__}"


def _unwrap_partial(function: Any) -> Callable[..., Any]:
    """Return the function inside partials, or the class of a callable object."""
    while isinstance(function, partial):
        function = function.func
    return function if hasattr(function, "__qualname__") else type(function)


def _describe_value(value: object) -> str:
    return "a mapping" if isinstance(value, Mapping) else f"an object of class {type(value).__name__}"
