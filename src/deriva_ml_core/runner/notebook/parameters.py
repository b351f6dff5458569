"""Find the parameters of a notebook, and resolve their values from the command line and a file."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.paths import expand_home
from deriva_ml_core.runner.notebook.notebook_file import Notebook

__all__ = ["Parameter", "find_parameters", "resolve_parameters"]

PARAMETERS_TAG = "parameters"
"""Papermill's tag for the cell that sets the defaults of parameters."""

ADDRESS_PARAMETERS = {"host": ("host", "hostname"), "catalog": ("catalog", "catalog_id")}
"""Names of the parameters that ``--host`` and ``--catalog`` set, if the notebook has them."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a notebook.

    Args:
        name: The name of the parameter.
        default: The source text of its default; empty if unknown.
        kind: Its annotated type, or the type of its default; empty if unknown.
        help: The comment in its line.
    """

    name: str
    default: str = ""
    kind: str = ""
    help: str = ""


def find_parameters(notebook: Notebook) -> dict[str, Parameter] | None:
    """Find the parameters of a notebook.

    Args:
        notebook: The notebook.

    Returns:
        The parameters by name, as assigned in the cell tagged ``parameters``. None if no cell has the tag; empty if
        papermill cannot inspect the language.
    """
    tagged = [cell for cell in notebook.content["cells"] if PARAMETERS_TAG in cell["metadata"].get("tags", [])]
    if not tagged:
        return None
    parameters = {each.name: each for each in _inspect_parameters(notebook, tagged[0])}
    if notebook.kernel.language == "python":
        for parsed in _parse_assignments(tagged[0]["source"]):
            inspected = parameters.get(parsed.name, parsed)
            parameters[parsed.name] = replace(parsed, kind=parsed.kind or inspected.kind, help=inspected.help)
    return parameters


def _inspect_parameters(notebook: Notebook, cell: Any) -> Iterator[Parameter]:
    from papermill.exceptions import PapermillException  # type: ignore[import-untyped]
    from papermill.translators import papermill_translators  # type: ignore[import-untyped]

    try:
        translator = papermill_translators.find_translator(notebook.kernel.name, notebook.kernel.language)
        inspected = translator.inspect(cell)
    except (NotImplementedError, PapermillException):
        return
    for each in inspected:
        kind = each.inferred_type_name
        yield Parameter(each.name, each.default, "" if kind == "None" else kind, each.help)


def _parse_assignments(source: str) -> Iterator[Parameter]:
    """Yield the names that a Python cell assigns, including those that papermill does not detect."""
    try:
        module = ast.parse(source)
    except SyntaxError:
        return  # for example a magic command
    for statement in ast.walk(module):
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield Parameter(name, ast.unparse(value))
            case ast.AnnAssign(target=ast.Name(id=name), annotation=kind, value=value):
                yield Parameter(name, "" if value is None else ast.unparse(value), ast.unparse(kind))
            case ast.Assign(targets=targets):
                names = (each for target in targets for each in ast.walk(target))
                yield from (Parameter(each.id) for each in names if isinstance(each, ast.Name))


def resolve_parameters(
    notebook: Notebook,
    pairs: Sequence[tuple[str, str]],
    file: Path | None,
    address: Mapping[str, str | None],
) -> dict[str, JsonValue]:
    """Resolve the values of a notebook's parameters; the command line takes precedence over the file.

    Args:
        notebook: The notebook.
        pairs: Names and values from the command line.
        file: A JSON or YAML file with parameters.
        address: The options ``host`` and ``catalog`` of the command line, for the parameters of these names.

    Returns:
        The values by parameter name.

    Raises:
        ConfigurationError: The notebook has no such parameter, or the file does not contain parameters.
    """
    parameters = find_parameters(notebook)
    texts = dict(pairs)
    values = {**(_read_parameters_file(file) if file else {}), **texts}
    if values and parameters is None:
        raise ConfigurationError(
            f"{notebook.path.name} has no parameters, so {', '.join(values)} cannot be set. Add the tag "
            f"{PARAMETERS_TAG!r} to the cell that assigns their defaults."
        )
    parameters = parameters or {}
    _reject_unknown(notebook, values, parameters)
    converted = {
        name: _convert_value(value, parameters[name]) if name in parameters and name in texts else value
        for name, value in values.items()
    }
    return {**_address_values(parameters, address), **converted}


def _reject_unknown(notebook: Notebook, values: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> None:
    if not parameters and notebook.kernel.language != "python":
        unknown = [name for name in values if not name.isidentifier()]  # the parameters of this language are unknown
    else:
        unknown = [name for name in values if name not in parameters]
    if unknown:
        raise ConfigurationError(
            f"{notebook.path.name} has no parameter {', '.join(map(repr, unknown))}. Its cell tagged "
            f"{PARAMETERS_TAG!r} assigns {', '.join(parameters) or 'none'}."
        )


def _address_values(parameters: Mapping[str, Parameter], address: Mapping[str, str | None]) -> dict[str, JsonValue]:
    return {
        name: value
        for part, names in ADDRESS_PARAMETERS.items()
        if (value := address.get(part)) is not None
        for name in names
        if name in parameters
    }


def _convert_value(text: str, parameter: Parameter) -> JsonValue:
    """Convert a value of the command line to the type of the default; the RID ``2E5`` stays text if that is text."""
    default = _parse_literal(parameter.default)
    if isinstance(default, str) or parameter.kind == "str":
        return text
    value = _parse_literal(text)
    if isinstance(value, list | dict | tuple) and isinstance(default, list | dict | tuple | None):
        return _check_json_value(value, f"The value {text} of the parameter {parameter.name!r}")
    return value if isinstance(value, bool | int | float | None) else text


def _check_json_value(value: Any, label: str) -> JsonValue:
    """Return a value in JSON types, in which the run's configuration is stored."""
    try:
        return json.loads(json.dumps(value))  # type: ignore[no-any-return]
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{label} cannot be stored as JSON ({error}). Use text, numbers, lists and mappings of them."
        ) from error


def _parse_literal(text: str) -> Any:
    """Parse a literal of Python or JSON; `_NotLiteral` for any other text."""
    constants = {"true": True, "false": False, "null": None}
    if text in constants:
        return constants[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return _NotLiteral


class _NotLiteral:
    """Marker for text that is no literal."""


def _read_parameters_file(file: Path) -> dict[str, Any]:
    import yaml

    try:
        text = expand_home(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The parameters file {file} cannot be read: {error}.") from error
    try:
        values = json.loads(text) if file.suffix == ".json" else yaml.load(text, Loader=_yaml_loader())  # noqa: S506
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"The parameters file {file} is neither JSON nor YAML: {error}.") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ConfigurationError(f"{file} contains no parameters. Write names with values, such as `epochs: 3`.")
    return {name: _check_json_value(value, f"The parameter {name!r} in {file}") for name, value in values.items()}


def _yaml_loader() -> Any:
    """Return a safe YAML loader that leaves dates as text, since papermill cannot pass dates to a notebook."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [each for each in resolvers if each[0] != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    return Loader
