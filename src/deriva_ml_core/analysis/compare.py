"""Differences between executions: code, configuration, environment, inputs and metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from deriva_ml_core._text import parse_duration
from deriva_ml_core._views import Cell, Grid, Presentable, View
from deriva_ml_core.analysis.run_files import (
    PATCH_FILE,
    load_configuration,
    load_curves,
    load_environment,
    load_fits,
    select_metadata_assets,
)
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import Role
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.execution.recorded import RecordedExecution, lookup_execution
from deriva_ml_core.models import Asset
from deriva_ml_core.workflow import lookup_workflow

__all__ = ["SECTIONS", "Comparison", "Difference", "compare_executions", "environment_sections", "find_differences"]

SECTIONS = ("outcome", "code", "configuration", "inputs", "environment", "packages", "metrics")
"""The sections of a comparison, in the order in which they are shown."""

IGNORED_VARIABLES = ("DERIVA_ML_EXECUTIONS",)
"""Environment variables that differ in every run and have no effect on it."""

Sections = Mapping[str, Mapping[str, Any]]
"""The values of one execution: by section, then by name."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that differs between executions.

    Args:
        section: One of `SECTIONS`.
        name: The value's name in its section.
        left: The value of the first execution; None if it has none.
        right: The value of the second execution; None if it has none.
        others: The values of further executions.
    """

    section: str
    name: str
    left: Any
    right: Any
    others: tuple[Any, ...] = ()

    @property
    def values(self) -> tuple[Any, ...]:
        """The values of all executions, in their order."""
        return (self.left, self.right, *self.others)

    def to_dict(self) -> dict[str, Any]:
        """Return the difference as ``deriva-ml diff --json`` prints it for two executions."""
        return {"section": self.section, "name": self.name, "left": self.left, "right": self.right}


@dataclass(frozen=True, slots=True)
class Comparison(Presentable):
    """The result of comparing executions.

    Args:
        left: The RID of the first execution.
        right: The RID of the second execution.
        differences: What differs, in the order of `SECTIONS`.
        equal_counts: The number of equal values by section.
        others: The RIDs of further executions.
        equal_values: The equal values by section and name.
    """

    left: str
    right: str
    differences: tuple[Difference, ...]
    equal_counts: Mapping[str, int]
    others: tuple[str, ...] = ()
    equal_values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def executions(self) -> tuple[str, ...]:
        """The RIDs of all executions."""
        return (self.left, self.right, *self.others)

    def to_dict(self, *, include_equal: bool = False) -> dict[str, Any]:
        """Return the comparison as ``deriva-ml diff --json`` prints it.

        Args:
            include_equal: Whether to include the equal values.
        """
        if self.others:
            differences: list[dict[str, Any]] = [
                {
                    "section": each.section,
                    "name": each.name,
                    "values": dict(zip(self.executions, each.values, strict=True)),
                }
                for each in self.differences
            ]
            values: dict[str, Any] = {"executions": list(self.executions), "differences": differences}
        else:
            differences = [difference.to_dict() for difference in self.differences]
            values = {"left": self.left, "right": self.right, "differences": differences}
        values["equal"] = dict(self.equal_counts)
        return values | ({"equal_values": {**self.equal_values}} if include_equal else {})

    def _view(self) -> View:
        grids = []
        for section in SECTIONS:
            rows = [[each.name, *map(_show, each.values)] for each in self.differences if each.section == section]
            equal = self.equal_counts.get(section, 0)
            if rows or equal:
                title = section.capitalize() + (f" ({equal:,} equal)" if equal else "")
                grids.append(Grid(rows, ("", *self.executions) if rows else (), title=title))
        is_equal = [] if self.differences else ["They do not differ."]
        return View(f"Executions {', '.join(self.executions)}", [*is_equal, *grids])


def _show(value: Any) -> Cell:
    """Return a value of a comparison for a table."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value if isinstance(value, str | int | float) else str(value)


def compare_executions(connection: Connection, *rids: str) -> Comparison:
    """Compare executions; see ``DerivaML.compare``."""
    if len(rids) < 2:
        raise ConfigurationError(f"A comparison needs two or more executions, and this is {len(rids)}. Name more RIDs.")
    left, right, *others = rids
    values = [_collect_sections(connection, rid) for rid in rids]
    differences = find_differences(*values)
    differing = {(each.section, each.name) for each in differences}
    equal = {
        section: {
            name: values[0][section].get(name)
            for name in dict.fromkeys(name for run in values for name in run[section])
            if (section, name) not in differing
        }
        for section in SECTIONS
    }
    counts = {section: len(of_section) for section, of_section in equal.items()}
    return Comparison(left, right, tuple(differences), counts, tuple(others), equal)


def find_differences(left: Sections, right: Sections, *others: Sections) -> list[Difference]:
    """Return what differs in the sections that all have, in the order of `SECTIONS`."""
    runs = (left, right, *others)
    differences = []
    for section in SECTIONS:
        if not all(section in run for run in runs):
            continue
        for name in dict.fromkeys(name for run in runs for name in run[section]):
            first, second, *rest = (run[section].get(name) for run in runs)
            if not all(_is_same(first, value) for value in (second, *rest)):
                differences.append(Difference(section, name, first, second, tuple(rest)))
    return differences


def _is_same(left: Any, right: Any) -> bool:
    return bool(left == right) or (left != left and right != right)  # NaN equals NaN here


def _collect_sections(connection: Connection, rid: str) -> Sections:
    execution = lookup_execution(connection, rid)
    assets = execution.list_assets()
    snapshot = load_environment(connection, execution, assets)
    sections: Sections = {
        "outcome": _outcome_section(execution),
        "code": _code_section(connection, execution, assets, snapshot),
        "configuration": _configuration_section(connection, execution, assets),
        "inputs": _inputs_section(execution, assets),
        **environment_sections(snapshot.get("environment") or {}),
        "metrics": _metrics_section(connection, execution, assets),
    }
    own_rid = re.compile(rf"(?<![A-Za-z0-9-]){re.escape(rid)}(?![A-Za-z0-9-])")
    return {
        section: {name: _mask_rid(value, own_rid) for name, value in values.items()}
        for section, values in sections.items()
    }


def _mask_rid(value: Any, own_rid: re.Pattern[str]) -> Any:
    """Replace the execution's own RID in texts, such as paths of its working folder, which differ in every run."""
    if isinstance(value, str):
        return own_rid.sub("<RID>", value)
    return [_mask_rid(part, own_rid) for part in value] if isinstance(value, list) else value


def _outcome_section(execution: RecordedExecution) -> dict[str, Any]:
    tags = execution.tags
    return {
        "description": execution.description,
        **({"tags": ", ".join(tags)} if tags else {}),
        "status": str(execution.status),
        "status detail": execution.status_detail,
        "duration in seconds": parse_duration(execution.duration),
    }


def _code_section(
    connection: Connection, execution: RecordedExecution, assets: list[Asset], snapshot: Mapping[str, Any]
) -> dict[str, Any]:
    source, repository = snapshot.get("source") or {}, snapshot.get("repository") or {}
    workflow = lookup_workflow(connection, execution.workflow_rid) if execution.workflow_rid else None
    patches = [asset.md5 for asset in select_metadata_assets(execution, assets, PATCH_FILE)]
    return {
        "workflow": f"{workflow.rid} {workflow.name} ({workflow.workflow_type})" if workflow else None,
        "url": source.get("url") or (workflow.url if workflow else None),
        "checksum": source.get("file_checksum") or source.get("checksum") or (workflow.checksum if workflow else None),
        "version": source.get("version") or (workflow.version if workflow else None),
        "commit": repository.get("head"),
        "branch": repository.get("branch"),
        "uncommitted changes": f"patch {patches[-1]}" if patches else None,
    }


def _configuration_section(connection: Connection, execution: RecordedExecution, assets: list[Asset]) -> dict[str, Any]:
    parameters = load_configuration(connection, execution, assets).get("parameters") or {}
    fits = load_fits(connection, execution, assets)
    values = dict(_flatten(parameters, ""))
    for fit in fits:
        prefix = "fit" if len(fits) == 1 else f"fit {fit.get('fit')}"
        values |= _flatten({"epochs": fit.get("epochs"), **(fit.get("settings") or {})}, prefix)
    return values


def _flatten(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield nested values by dotted names."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = _name_items(value)
    if isinstance(value, dict) and (value or not prefix):
        for key, part in value.items():
            yield from _flatten(part, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _name_items(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the items of a list by name, so that an added item does not shift the others; else by position."""
    named: dict[str, Any] = {}
    for position, item in enumerate(items):
        key = next((key for key in ("name", "class", "class_name", "type") if isinstance(item.get(key), str)), None)
        name = str(position) if key is None else str(item[key])
        count = 2
        while name in named:
            name, count = f"{name.partition('#')[0]}#{count}", count + 1
        named[name] = {part: value for part, value in item.items() if part != key} or True
    return named


def _inputs_section(execution: RecordedExecution, assets: list[Asset]) -> dict[str, Any]:
    versions: dict[str, list[str]] = {}
    for spec in execution.list_input_datasets():
        versions.setdefault(spec.rid, []).append(spec.version or "?")
    datasets = {f"dataset {rid}": ", ".join(sorted(of_dataset)) for rid, of_dataset in versions.items()}
    return datasets | {f"{asset.table} {asset.rid}": asset.filename for asset in assets if asset.role == Role.input}


def environment_sections(environment: Mapping[str, Any]) -> Sections:
    """Return the sections ``environment`` and ``packages`` of an environment snapshot."""
    return {"environment": _environment_section(environment), "packages": dict(environment.get("packages") or {})}


def _environment_section(environment: Mapping[str, Any]) -> dict[str, Any]:
    python = environment.get("python") or {}
    names = ("platform", "hostname", "user", "working_directory", "processors_usable", "memory_bytes", "gpus")
    return {
        "command": " ".join(environment.get("argv") or []) or None,
        "python": python.get("version"),
        "python's folder": python.get("prefix"),
        **{name.replace("_", " "): environment.get(name) for name in names},
        **{
            f"${name}": value
            for name, value in (environment.get("variables") or {}).items()
            if name not in IGNORED_VARIABLES
        },
    }


def _metrics_section(connection: Connection, execution: RecordedExecution, assets: list[Asset]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for curve in load_curves(connection, execution, assets):
        name = curve.name if curve.stage == "fit" else f"{curve.stage} {curve.name}"
        values[f"{name}, last"] = curve.last  # the value of the last fit replaces those of earlier fits
        if curve.stage == "fit":
            values[f"{name}, best"] = curve.best
    return values
