"""What differs between two executions: code, configuration, environment, inputs, metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from deriva_ml_core._text import parse_duration
from deriva_ml_core.analysis.describe import (
    fetch_metadata_file,
    load_configuration,
    load_curves,
    load_environment,
    read_json_object,
)
from deriva_ml_core.definitions import Role
from deriva_ml_core.execution.recorded import lookup_execution
from deriva_ml_core.models import Asset
from deriva_ml_core.training.files import TRAINING_SUMMARY_FILE
from deriva_ml_core.workflow import lookup_workflow

if TYPE_CHECKING:
    from deriva_ml_core.connection import Connection
    from deriva_ml_core.execution.recorded import RecordedExecution

__all__ = ["SECTIONS", "Difference", "find_differences", "environment_sections", "collect_comparison"]

SECTIONS = ("outcome", "code", "configuration", "inputs", "environment", "packages", "metrics")
"""The parts of what is compared, in the order in which they are shown."""

IGNORED_VARIABLES = ("DERIVA_ML_EXECUTIONS",)
"""Variables by which processes of one run know each other; they differ always and change nothing."""

Comparison = dict[str, dict[str, Any]]
"""What is told of one execution: values by name, by section."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that two executions do not share; None where one has none of that name."""

    section: str
    name: str
    left: Any
    right: Any

    def to_dict(self) -> dict[str, Any]:
        """Its value for programs."""
        return asdict(self)


def collect_comparison(connection: Connection, rid: str) -> Comparison:
    """All of an execution that can be compared.

    Raises:
        InvalidRID, UnknownRID, WrongTable: There is no such execution.
    """
    execution = lookup_execution(connection, rid)
    assets = execution.list_assets()
    snapshot = load_environment(connection, execution, assets)
    environment = snapshot.get("environment") or {}
    return {
        "outcome": _outcome_section(execution),
        "code": _code_section(connection, execution, assets, snapshot),
        "configuration": _configuration_section(connection, execution, assets),
        "inputs": _inputs_section(execution, assets),
        **environment_sections(environment),
        "metrics": _metrics_section(connection, execution, assets),
    }


def find_differences(left: Comparison, right: Comparison) -> list[Difference]:
    """What differs, section by section, in the order of the names there."""
    return [
        Difference(section, name, left[section].get(name), right[section].get(name))
        for section in SECTIONS
        if section in left and section in right
        for name in dict.fromkeys((*left[section], *right[section]))
        if not _is_same(left[section].get(name), right[section].get(name))
    ]


def _is_same(left: Any, right: Any) -> bool:
    return bool(left == right) or (left != left and right != right)  # NaN differs from nothing but numbers


def _outcome_section(execution: RecordedExecution) -> dict[str, Any]:
    return {
        "description": execution.description,
        "status": str(execution.status),
        "status detail": execution.status_detail,
        "duration in seconds": parse_duration(execution.duration),
    }


def _code_section(
    connection: Connection, execution: RecordedExecution, assets: list[Asset], snapshot: Mapping[str, Any]
) -> dict[str, Any]:
    source, repository = snapshot.get("source") or {}, snapshot.get("repository") or {}
    workflow = lookup_workflow(connection, execution.workflow_rid) if execution.workflow_rid else None
    patches = [asset.md5 for asset in assets if asset.filename == "uncommitted.patch"]
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
    with fetch_metadata_file(
        connection, assets, TRAINING_SUMMARY_FILE, local_path=execution.working_dir / TRAINING_SUMMARY_FILE
    ) as file:
        fits = [fit for fit in read_json_object(file).get("fits") or [] if isinstance(fit, dict)]
    found = dict(_flatten(parameters, ""))
    for fit in fits:
        name = "fit" if len(fits) == 1 else f"fit {fit.get('fit')}"
        found |= _flatten({"epochs": fit.get("epochs"), **(fit.get("settings") or {})}, name)
    return found


def _flatten(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Nested values by dotted names."""
    if isinstance(value, dict) and (value or not prefix):
        for key, part in value.items():
            yield from _flatten(part, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _inputs_section(execution: RecordedExecution, assets: list[Asset]) -> dict[str, Any]:
    versions: dict[str, list[str]] = {}
    for spec in execution.list_input_datasets():
        versions.setdefault(spec.rid, []).append(spec.version or "?")
    datasets = {f"dataset {rid}": ", ".join(sorted(found)) for rid, found in versions.items()}
    files = {f"{each.table} {each.rid}": each.filename for each in assets if each.role == Role.input}
    return datasets | files


def environment_sections(environment: Mapping[str, Any]) -> Comparison:
    """What an environment snapshot's own part tells, as the sections ``environment`` and ``packages``."""
    return {"environment": _environment_section(environment), "packages": dict(environment.get("packages") or {})}


def _environment_section(environment: Mapping[str, Any]) -> dict[str, Any]:
    python = environment.get("python") or {}
    plain = ("platform", "hostname", "user", "working_directory", "processors_usable", "memory_bytes", "gpus")
    return {
        "command": " ".join(environment.get("argv") or []) or None,
        "python": python.get("version"),
        "python's folder": python.get("prefix"),
        **{name.replace("_", " "): environment.get(name) for name in plain},
        **{
            f"${name}": value
            for name, value in (environment.get("variables") or {}).items()
            if name not in IGNORED_VARIABLES
        },
    }


def _metrics_section(connection: Connection, execution: RecordedExecution, assets: list[Asset]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for curve in load_curves(connection, execution, assets):
        name = curve.name if curve.stage == "fit" else f"{curve.stage} {curve.name}"
        found[f"{name}, last"] = curve.last  # that of the last fit stays
        if curve.stage == "fit":
            found[f"{name}, best"] = curve.best
    return found
