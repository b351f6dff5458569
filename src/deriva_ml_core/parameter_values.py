"""Parameters of a run: settings flattened to names and values, and their form in the table Execution_Parameter."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deriva_ml_core._text import escape_surrogates

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_NAME_LENGTH",
    "MAX_PARAMETERS",
    "MAX_VALUE_LENGTH",
    "PARAMETER_FILES",
    "decode_value",
    "encode_value",
    "flatten_parameters",
    "limit_parameters",
    "read_parameter_file",
    "select_fit_parameters",
    "select_run_parameters",
    "to_json_value",
]

MAX_PARAMETERS = 1000
"""Maximum number of parameters of an execution. Further ones are only in its files."""

MAX_NAME_LENGTH = 200
"""Maximum number of characters of a name. A parameter with a longer name is only in the execution's files."""

MAX_VALUE_LENGTH = 500
"""Maximum number of characters of a value; a longer one is cut, with ``…`` at its end."""


def flatten_parameters(values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the values of nested settings by name, such as ``optimizer.lr``.

    The items of a list of settings are numbered from 0. A list without settings is one value.

    Args:
        values: Settings by name; a value may be such a mapping too.
    """
    return dict(_iter_leaves("", values))


def _iter_leaves(name: str, value: JsonValue | Mapping[str, JsonValue]) -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _iter_leaves(f"{name}.{key}" if name else str(key), part)
    elif isinstance(value, list) and any(isinstance(item, (Mapping, list)) for item in value):
        for index, item in enumerate(value):
            yield from _iter_leaves(f"{name}.{index}", item)
    elif isinstance(value, float) and not math.isfinite(value):
        yield name, str(value)  # JSON has no such number
    else:
        yield name, value


def limit_parameters(
    parameters: Mapping[str, JsonValue], known: Mapping[str, JsonValue]
) -> tuple[dict[str, JsonValue], list[str]]:
    """Return the parameters that an execution can record, and the names of the others.

    Args:
        parameters: Parameters to record.
        known: Parameters that the execution already has.
    """
    selected: dict[str, JsonValue] = {}
    left_out = []
    free = MAX_PARAMETERS - len(known)
    for name, value in parameters.items():
        if name in known:
            selected[name] = value
        elif name and len(name) <= MAX_NAME_LENGTH and free > 0:
            selected[name] = value
            free -= 1
        else:
            left_out.append(name[:MAX_NAME_LENGTH])
    return selected, left_out


MAX_DEPTH = 12
MAX_LENGTH = 1000
"""Maximum depth of nested settings, and maximum number of list items or characters of a ``repr`` that are stored."""

MAX_INTEGER_BITS = 2000
"""Maximum size of an integer that is stored as a number: Python refuses to convert more than 4,300 digits, or 640 where
the limit is lowered."""


def to_json_value(value: object, depth: int = 0) -> JsonValue:
    """Convert settings of any type to a JSON value; other types become their ``repr``, truncated if long.

    A value that cannot be read or represented becomes a text that states this; the other values are kept.
    """
    try:
        return _convert_value(value, depth)
    except Exception as error:  # noqa: BLE001 - the value may be of any class
        return _unreadable_text(error)


def _convert_value(value: object, depth: int) -> JsonValue:
    if value is None:
        return None
    if isinstance(value, (str, bool, int, float)):
        return _builtin_value(value)
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            return {_key_text(name): _convert_item(value, name, depth) for name in value}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [to_json_value(part, depth + 1) for part in list(value)[:MAX_LENGTH]]
    if isinstance(value, Path):
        return escape_surrogates(os.fspath(value))
    if hasattr(value, "item") and not isinstance(value, type):
        return _scalar_value(value)
    return _short_repr(value)


def _convert_item(mapping: Mapping[object, object], name: object, depth: int) -> JsonValue:
    """Convert one value of a mapping; a mapping may compute its values, and raise for one of them."""
    try:
        return to_json_value(mapping[name], depth + 1)
    except Exception as error:  # noqa: BLE001 - the mapping may be of any class
        return _unreadable_text(error)


def _key_text(name: object) -> str:
    try:
        return escape_surrogates(str(name))
    except Exception as error:  # noqa: BLE001 - the key may be of any class
        return _unreadable_text(error)


def _unreadable_text(error: Exception) -> str:
    return f"<not readable: {type(error).__name__}>"


def _short_repr(value: object) -> str:
    return escape_surrogates(repr(value))[:MAX_LENGTH]


def _scalar_value(value: object) -> JsonValue:
    """Return the number in a tensor or an array of one element; the ``repr`` of a larger one."""
    try:
        return _convert_value(value.item(), MAX_DEPTH)  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - the value may be of any class
        return _short_repr(value)


def _builtin_value(value: str | bool | int | float) -> JsonValue:
    """Return the built-in value, also of a subclass, such as a NumPy float or a string enumeration member.

    An integer with more digits than Python converts to text is written in hexadecimal.
    """
    plain = next(kind(value) for kind in (bool, int, float, str) if isinstance(value, kind))
    if isinstance(plain, str):
        return escape_surrogates(plain)
    if isinstance(plain, int) and plain.bit_length() > MAX_INTEGER_BITS:
        return hex(plain)[:MAX_LENGTH]
    return plain


_TRAINER_PARAMETERS: Mapping[str, str] = {
    "max_epochs": "epochs",
    "max_steps": "max_steps",
    "precision": "precision",
    "accumulate_grad_batches": "accumulate_grad_batches",
    "gradient_clip_val": "gradient_clip_val",
}
"""The settings of Lightning's Trainer that are parameters, and their names."""

_KERAS_PARAMETERS = ("batch_size", "epochs", "seed", "dtype_policy")


def select_fit_parameters(settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the parameters among the settings of a fit, flattened.

    An integration records more than parameters, such as layers and versions, and its settings have the entry
    ``framework``. Of those, the hyperparameters, optimizers, schedulers, batch size, number of epochs and precision are
    parameters. All settings of another training loop are parameters.

    Args:
        settings: Settings that ``TrainingReporter.begin_fit`` got, as JSON values.
    """
    if "framework" not in settings:
        return flatten_parameters(settings)
    parts: list[Mapping[str, JsonValue]] = [
        _as_mapping(settings.get("hyperparameters")),
        _as_mapping(settings.get("data_hyperparameters")),
        _number_if_several("optimizer", settings.get("optimizers")),
        _number_if_several("scheduler", settings.get("schedulers")),
        {"batch_size": value} if (value := _as_mapping(settings.get("data")).get("batch_size")) is not None else {},
        _rename(_as_mapping(settings.get("trainer")), _TRAINER_PARAMETERS),
        {name: settings[name] for name in _KERAS_PARAMETERS if settings.get(name) is not None},
        _compile_parameters(_as_mapping(settings.get("compiled"))),
    ]
    parameters: dict[str, JsonValue] = {}
    for part in parts:
        for name, value in flatten_parameters(part).items():
            parameters.setdefault(name, value)
    return parameters


def select_run_parameters(recorded: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the parameters among the ``parameters`` of an execution's configuration, flattened.

    A runner records Hydra's choices and overrides too. Of these, the choices by config group, the settings of the model
    function, and the parameters of a notebook are parameters. What a user records are parameters altogether.

    Args:
        recorded: The ``parameters`` of ``ExecutionConfiguration`` or of ``configuration.json``.
    """
    overrides = recorded.get("overrides")
    if not isinstance(overrides, list):
        return flatten_parameters(recorded)
    settings = recorded.get("model_config", recorded.get("config"))
    parts: list[Mapping[str, JsonValue]] = [
        _as_mapping(recorded.get("parameters")),
        _as_mapping(settings),
        # the overrides of a sweep name several values for its jobs
        {} if isinstance(settings, dict) or "sweep" in recorded else dict(_parse_overrides(overrides)),
        _as_mapping(recorded.get("config_choices")),
    ]
    parameters: dict[str, JsonValue] = {}
    for part in parts:
        for name, value in flatten_parameters(part).items():
            if not any(key.startswith(("_", "zen_")) for key in name.split(".")):  # directives of Hydra and hydra-zen
                parameters.setdefault(name, value)
    return parameters


PARAMETER_FILES = ("configuration.json", "training.json")
"""Names of the files that contain an execution's parameters."""

MAX_FILE_BYTES = 16 * 2**20
"""Maximum size of such a file; a larger one is not read."""


def read_parameter_file(filename: str, content: bytes) -> dict[str, JsonValue]:
    """Return the parameters in a file of an execution; none if the file is damaged.

    Args:
        filename: One of `PARAMETER_FILES`.
        content: Content of the file.
    """
    try:
        document = json.loads(content)
        if filename == "configuration.json":
            return select_run_parameters(document["parameters"])
        settings = [fit["settings"] for fit in document["fits"] if "settings" in fit]
        return {name: value for each in reversed(settings) for name, value in select_fit_parameters(each).items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _parse_overrides(overrides: Sequence[JsonValue]) -> Iterator[tuple[str, JsonValue]]:
    """Yield name and value of overrides such as ``+model_config.lr=0.1``."""
    for override in overrides:
        name, separator, text = str(override).lstrip("+").partition("=")
        if separator and not name.startswith(("~", "hydra")):
            yield name.removeprefix("model_config."), decode_value(text)


def _as_mapping(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _rename(values: Mapping[str, JsonValue], names: Mapping[str, str]) -> dict[str, JsonValue]:
    # Lightning has -1 for no limit
    return {names[name]: value for name, value in values.items() if name in names and value not in (None, -1)}


def _number_if_several(name: str, values: JsonValue) -> dict[str, JsonValue]:
    """Return the settings of optimizers or schedulers under ``name``, or ``name.0``, ``name.1`` ... if several."""
    items: Sequence[JsonValue] = values if isinstance(values, list) else []
    named = {name if len(items) == 1 else f"{name}.{index}": item for index, item in enumerate(items)}
    return {
        key: value
        for prefix, item in named.items()
        for key, value in _with_kind(prefix, _as_mapping(item), "name").items()
        if not key.endswith((".groups", ".how"))
    }


def _compile_parameters(compiled: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the arguments of Keras' ``compile``; an object is named by its class, and its settings follow."""
    parameters: dict[str, JsonValue] = {}
    for name, value in compiled.items():
        item = _as_mapping(value)
        if "class_name" in item:
            settings = {"class_name": item["class_name"], **_as_mapping(item.get("config"))}
            parameters |= _with_kind(name, {key: each for key, each in settings.items() if key != "name"}, "class_name")
        elif value is not None:
            parameters[name] = value
    return parameters


def _with_kind(name: str, settings: Mapping[str, JsonValue], kind: str) -> dict[str, JsonValue]:
    """Return settings under a name that is itself the kind of object, such as ``Adam``."""
    own: dict[str, JsonValue] = {
        f"{name}.{key}": value for key, value in settings.items() if key != kind and value is not None
    }
    return {name: settings[kind], **own} if kind in settings else own


def encode_value(value: JsonValue) -> tuple[str, float | None]:
    """Return the columns Value and Number of a parameter.

    A text is stored as it is, unless it reads as JSON; that and every other value is stored as JSON. So the text
    ``"1"`` and the number 1 differ. A text over `MAX_VALUE_LENGTH` characters is cut.

    Returns:
        The text, and the number if the value is a finite number that a float64 can hold.
    """
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False) if _is_json(value) else value
    else:
        text = json.dumps(value, ensure_ascii=False)
    number = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value) if math.isfinite(value) else None
        except OverflowError:
            number = None
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[: MAX_VALUE_LENGTH - 1]}…", number


def decode_value(text: str) -> JsonValue:
    """Return the value of the column Value of a parameter."""
    try:
        value: JsonValue = json.loads(text)
    except (ValueError, RecursionError):  # a plain text
        return text
    return value


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
