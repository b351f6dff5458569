"""The parameters of a notebook: which it has, and what they are given on the command line and in a file."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.runner.notebook.notebook_file import Notebook

__all__ = ["Parameter", "find_parameters", "resolve_parameters"]

PARAMETERS_TAG = "parameters"
"""The tag of the cell that gives parameters their defaults, as papermill knows it."""

ADDRESS_PARAMETERS = {"host": ("host", "hostname"), "catalog": ("catalog", "catalog_id")}
"""The parameters that ``--host`` and ``--catalog`` fill, in a notebook that has them."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a notebook.

    Args:
        name: Its name.
        default: Its default as the notebook writes it; empty where that is not known.
        kind: The type that is written beside it, or that the default has; empty where neither is known.
        help: The comment beside it.
    """

    name: str
    default: str = ""
    kind: str = ""
    help: str = ""


def find_parameters(notebook: Notebook) -> dict[str, Parameter] | None:
    """The parameters that a notebook has, by name.

    Args:
        notebook: The notebook.

    Returns:
        What the cell tagged ``parameters`` assigns; None where no cell is tagged so. Of a language that papermill
        cannot look into, nothing.
    """
    tagged = [cell for cell in notebook.content["cells"] if PARAMETERS_TAG in cell["metadata"].get("tags", [])]
    if not tagged:
        return None
    listed = {each.name: each for each in _inspect_parameters(notebook, tagged[0])}
    if notebook.kernel.language == "python":
        for each in _parse_assignments(tagged[0]["source"]):
            beside = listed.get(each.name, each)
            listed[each.name] = replace(each, kind=each.kind or beside.kind, help=beside.help)
    return listed


def _inspect_parameters(notebook: Notebook, cell: Any) -> Iterator[Parameter]:
    from papermill.exceptions import PapermillException  # type: ignore[import-untyped]
    from papermill.translators import papermill_translators  # type: ignore[import-untyped]

    try:
        translator = papermill_translators.find_translator(notebook.kernel.name, notebook.kernel.language)
        found = translator.inspect(cell)
    except (NotImplementedError, PapermillException):
        return
    for each in found:
        kind = each.inferred_type_name
        yield Parameter(each.name, each.default, "" if kind == "None" else kind, each.help)


def _parse_assignments(source: str) -> Iterator[Parameter]:
    """What a cell of Python assigns, also in ways that papermill does not look for."""
    try:
        module = ast.parse(source)
    except SyntaxError:
        return  # it has a magic command, say
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
    """The values that a notebook's parameters are given; the command line stands above the file.

    Args:
        notebook: The notebook.
        pairs: Names and values from the command line.
        file: A file of JSON or YAML.
        address: ``host`` and ``catalog`` from the command line, for the parameters of these names.

    Raises:
        ConfigurationError: The notebook has no such parameter, or the file is not a set of them.
    """
    known = find_parameters(notebook)
    asked = {**(_read_parameters_file(file) if file else {}), **dict(pairs)}
    if asked and known is None:
        raise ConfigurationError(
            f"{notebook.path.name} takes no parameters, and {', '.join(asked)} is given: give the cell with their "
            f"defaults the tag {PARAMETERS_TAG!r}."
        )
    _reject_unknown(notebook, asked, known or {})
    given = {
        name: _convert_value(value, known[name]) if known and name in known and name in dict(pairs) else value
        for name, value in asked.items()
    }
    return {**_address_values(known or {}, address), **given}


def _reject_unknown(notebook: Notebook, values: Mapping[str, Any], known: Mapping[str, Parameter]) -> None:
    if not known and notebook.kernel.language != "python":
        unknown = [name for name in values if not name.isidentifier()]  # nobody can say which it has
    else:
        unknown = [name for name in values if name not in known]
    if unknown:
        raise ConfigurationError(
            f"{notebook.path.name} has no parameter {', '.join(map(repr, unknown))}; its cell tagged "
            f"{PARAMETERS_TAG!r} has "
            f"{', '.join(known) or 'none'}."
        )


def _address_values(known: Mapping[str, Parameter], address: Mapping[str, str | None]) -> dict[str, JsonValue]:
    return {
        name: value
        for part, names in ADDRESS_PARAMETERS.items()
        if (value := address.get(part)) is not None
        for name in names
        if name in known
    }


def _convert_value(text: str, parameter: Parameter) -> JsonValue:
    """A word of the command line as what the notebook's default is: a text stays a text, ``2E5`` a record id."""
    default = _parse_literal(parameter.default)
    if isinstance(default, str) or parameter.kind == "str":
        return text
    value = _parse_literal(text)
    if isinstance(value, list | dict | tuple) and isinstance(default, list | dict | tuple | None):
        return _check_json_value(value, f"The value {text} of the parameter {parameter.name!r}")
    return value if isinstance(value, bool | int | float | None) else text


def _check_json_value(value: Any, label: str) -> JsonValue:
    """A value as JSON has it, which is what a run's configuration keeps."""
    try:
        return json.loads(json.dumps(value))  # type: ignore[no-any-return]
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{label} is more than texts, numbers, lists and mappings of them ({error}): give what JSON can hold."
        ) from error


def _parse_literal(text: str) -> Any:
    """What a literal of Python or JSON means; the text itself where it is none."""
    words = {"true": True, "false": False, "null": None}
    if text in words:
        return words[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return _NotLiteral


class _NotLiteral:
    """What is no literal."""


def _read_parameters_file(file: Path) -> dict[str, Any]:
    import yaml

    try:
        text = file.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The parameters {file} cannot be read: {error}.") from error
    try:
        found = json.loads(text) if file.suffix == ".json" else yaml.load(text, Loader=_yaml_loader())  # noqa: S506
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"The parameters {file} are neither JSON nor YAML: {error}.") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ConfigurationError(f"{file} holds no parameters: names with values are meant, such as `epochs: 3`.")
    return {name: _check_json_value(value, f"The parameter {name!r} in {file}") for name, value in found.items()}


def _yaml_loader() -> Any:
    """Safe YAML, in which a date stays the text that it is: a notebook's cell cannot be given anything else."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [each for each in resolvers if each[0] != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    return Loader
