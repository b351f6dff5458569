"""Conditions on parameters and metrics, such as ``lr > 0.001``: parsed, resolved in a catalog, and never SQL as text.

The grammar of a condition::

    condition = name operator value
    name      = [ "params." | "metrics." ] text | ( "last" | "best" ) "(" text ")"
    operator  = "=" | "==" | "!=" | "<" | "<=" | ">" | ">="
    value     = number | "true" | "false" | "null" | quoted text | text without spaces
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from deriva_ml_core.backend import NOT_NULL, Comparison, InSubquery
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import MLTable
from deriva_ml_core.errors import AmbiguousName, ConfigurationError, InvalidCondition, UnknownParameter
from deriva_ml_core.execution.row_sync import has_metrics, has_parameters
from deriva_ml_core.parameter_values import encode_value

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["STAGES", "Condition", "missing_table_error", "parse_condition", "resolve_conditions"]

STAGES = ("fit", "validate", "test", "predict")
"""Stages in the order in which a metric without a stage is looked up."""

MAX_NAME_ROWS = 2000
"""Maximum number of rows read to list the known names."""

Operator = Literal["=", "!=", "<", "<=", ">", ">="]

_NAME = re.compile(r"(?:(last|best)\(\s*([^()\s]+)\s*\)|\"([^\"]+)\"|([^\s=!<>()\"]+))")
_OPERATOR = re.compile(r"==|!=|<=|>=|=|<|>")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'[^']*'")
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_WORDS: Mapping[str, JsonValue] = {"true": True, "false": False, "null": None}
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of a parameter or a metric with a value.

    Args:
        name: Name of the parameter or the metric.
        operator: How they relate.
        value: The value.
        kind: ``"params"`` or ``"metrics"``; None if the name decides.
        value_column: ``"Last"`` or ``"Best"`` for that value of a metric; None for the best one.
        text: The condition as the user wrote it, for messages.
    """

    name: str
    operator: Operator
    value: JsonValue
    kind: Literal["params", "metrics"] | None = None
    value_column: Literal["Last", "Best"] | None = None
    text: str = ""


def parse_condition(text: str) -> Condition:
    """Parse a condition such as ``lr > 0.001``, ``params.optimizer = Adam`` or ``last(val_loss) < 0.3``.

    Raises:
        InvalidCondition: It is no condition; the message shows where.
    """
    position = _skip_space(text, 0)
    if (found := _NAME.match(text, position)) is None:
        raise _syntax_error(text, position, "a name of a parameter or a metric")
    function, argument, quoted, plain = found.groups()
    position = _skip_space(text, found.end())
    if (sign := _OPERATOR.match(text, position)) is None:
        raise _syntax_error(text, position, "one of = != < <= > >=")
    value_at = _skip_space(text, sign.end())
    value = _parse_value(text, value_at)
    operator: Any = "=" if sign[0] == "==" else sign[0]
    if operator not in ("=", "!=") and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise _syntax_error(text, value_at, f"a number after {operator}")
    kind, name = _split_kind(argument or quoted or plain)
    if function:
        if kind == "params":
            raise _syntax_error(text, 0, f"a metric in {function}(), not a parameter")
        return Condition(name, operator, value, "metrics", "Last" if function == "last" else "Best", text)
    return Condition(name, operator, value, kind, text=text)


def _skip_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _split_kind(name: str) -> tuple[Literal["params", "metrics"] | None, str]:
    for kind in ("params", "metrics"):
        if name.startswith(f"{kind}.") and len(name) > len(kind) + 1:
            return kind, name[len(kind) + 1 :]
    return None, name


def _parse_value(text: str, position: int) -> JsonValue:
    rest = text[position:].rstrip()
    if not rest:
        raise _syntax_error(text, position, "a value")
    if rest[0] in "\"'":
        if (quoted := _QUOTED.fullmatch(rest)) is None:
            raise _syntax_error(text, position, f"a text that ends with {rest[0]}")
        try:
            return str(json.loads(quoted[0], strict=False)) if rest[0] == '"' else rest[1:-1]
        except ValueError:
            raise _syntax_error(text, position, "no backslash, or two for each") from None
    if len(rest.split()) > 1:
        raise _syntax_error(text, position + len(rest.split()[0]), "nothing more; quote a text with spaces")
    if rest in _WORDS:
        return _WORDS[rest]
    try:
        return int(rest) if _INTEGER.fullmatch(rest) else float(rest) if _NUMBER.fullmatch(rest) else rest
    except ValueError:  # an integer with more digits than Python reads
        return rest


def _syntax_error(text: str, position: int, expected: str) -> InvalidCondition:
    return InvalidCondition(
        f"The condition {text!r} is invalid at character {position + 1}: expected {expected}. "
        "Write, for example, 'lr > 0.001' or 'optimizer = Adam'."
    )


def resolve_conditions(
    connection: Connection, where: str | Sequence[str], params: Mapping[str, JsonValue], stage: str | None
) -> list[InSubquery]:
    """Return subqueries, each of which matches the executions that fulfil one condition.

    Args:
        connection: The catalog.
        where: Conditions on parameters and metrics, or a single one.
        params: Values of parameters.
        stage: Stage of the metrics; None for the first that has a metric.

    Raises:
        InvalidCondition: A condition cannot be parsed.
        UnknownParameter: No execution has a parameter or a metric of a name; the message names similar ones.
        AmbiguousName: A name is that of a parameter and of a metric.
        ConfigurationError: The catalog has no table for parameters or metrics.
    """
    conditions = [Condition(name, "=", value, "params") for name, value in params.items()]
    conditions += [parse_condition(text) for text in ([where] if isinstance(where, str) else where)]
    return [_resolve(connection, condition, stage) for condition in conditions]


def _resolve(connection: Connection, condition: Condition, stage: str | None) -> InSubquery:
    is_parameter = condition.kind != "metrics" and _is_known(connection, MLTable.execution_parameter, condition.name)
    metric_stages = [] if condition.kind == "params" else _find_stages(connection, condition.name, stage)
    if is_parameter and metric_stages:
        raise AmbiguousName(
            f"{condition.name!r} is a parameter and a metric. Write params.{condition.name} or "
            f"metrics.{condition.name}."
        )
    if is_parameter:
        return InSubquery(MLTable.execution_parameter, _parameter_filter(condition), column="Execution")
    if metric_stages:
        return _metric_subquery(connection, condition, metric_stages[0])
    raise _unknown_name(connection, condition, stage)


def _is_known(connection: Connection, table: str, name: str) -> bool:
    is_present = has_parameters(connection.catalog.model)
    return is_present and bool(connection.catalog.select(table, {"Name": name}, order=(), limit=1))


def _find_stages(connection: Connection, name: str, stage: str | None) -> Sequence[str]:
    """Return the first stage that has a metric, or nothing."""
    if not has_metrics(connection.catalog.model):
        return ()
    for candidate in STAGES if stage is None else (stage,):
        where = {"Name": name, "Stage": candidate}
        if connection.catalog.select(MLTable.execution_metric, where, order=(), limit=1):
            return (candidate,)
    return ()


def _parameter_filter(condition: Condition) -> dict[str, Any]:
    text, number = encode_value(condition.value)
    column, value = ("Value", text) if number is None else ("Number", number)
    if condition.operator == "=":
        return {"Name": condition.name, column: value}
    if condition.operator == "!=" and number is not None:  # another number, or a text
        return {"Name": condition.name, "Value": Comparison("!=", text)}
    return {"Name": condition.name, column: Comparison(condition.operator, value)}


def _metric_subquery(connection: Connection, condition: Condition, stage: str) -> InSubquery:
    if isinstance(condition.value, bool) or not isinstance(condition.value, (int, float)):
        raise InvalidCondition(
            f"The condition {condition.text!r} compares a metric with {condition.value!r}. Use a number."
        )
    where = {"Name": condition.name, "Stage": stage}
    column = condition.value_column or "Best"
    if column == "Best" and not connection.catalog.select(
        MLTable.execution_metric, {**where, "Best": NOT_NULL}, order=(), limit=1
    ):
        raise ConfigurationError(
            f"The metric {condition.name!r} has no best value: it is unknown whether larger values are better. Compare "
            f"its last value: last({condition.name})."
        )
    number = float(condition.value)
    value = number if condition.operator == "=" else Comparison(condition.operator, number)
    return InSubquery(MLTable.execution_metric, {**where, column: value}, column="Execution")


def _unknown_name(connection: Connection, condition: Condition, stage: str | None) -> Exception:
    model = connection.catalog.model
    if not has_parameters(model) and condition.kind != "metrics":
        return missing_table_error(connection, MLTable.execution_parameter, f"parameters such as {condition.name!r}")
    kinds = {"params": "parameter", "metrics": "metric", None: "parameter or metric"}
    of_stage = f" of stage {stage}" if stage else ""
    names = sorted(set(_known_names(connection, condition.kind)))
    similar = difflib.get_close_matches(condition.name, names, n=5, cutoff=0.5) or names[:10]
    known = f"Did you mean {' or '.join(map(repr, similar))}?" if similar else "No run has recorded any yet."
    return UnknownParameter(f"No execution has a {kinds[condition.kind]} {condition.name!r}{of_stage}. {known}")


def missing_table_error(connection: Connection, table: str, purpose: str) -> ConfigurationError:
    """Return the error for a catalog that lacks a table of this version.

    Args:
        connection: The catalog.
        table: The table.
        purpose: What the table has, for the message.
    """
    remedy = (
        "To add it, open the catalog once with this version and write access."
        if not connection.address.is_on_server
        else "Its owner can add it, without losing data, by DerivaML.create(hostname, project_name, catalog_id=...)."
    )
    return ConfigurationError(f"{connection.catalog.name} has no table {table} with {purpose}. {remedy}")


def _known_names(connection: Connection, kind: str | None) -> Iterator[str]:
    tables = {"params": MLTable.execution_parameter, "metrics": MLTable.execution_metric}
    for table_kind, table in tables.items():
        if kind in (None, table_kind) and table in connection.catalog.model.tables:
            rows = connection.catalog.select(table, order=("RCT",), descending=True, limit=MAX_NAME_ROWS)
            yield from (row["Name"] for row in rows)
