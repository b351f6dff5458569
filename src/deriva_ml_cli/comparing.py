"""What differs between two executions: code, configuration, environment, inputs, metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from deriva_ml_cli.kept import configuration_of, kept_file, read_json
from deriva_ml_cli.subjects import curves_of, environment_of
from deriva_ml_cli.wording import parsed_duration
from deriva_ml_core.definitions import Role
from deriva_ml_core.models import Asset
from deriva_ml_core.training.facts import FACTS_FILE

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.execution.provenance import RecordedExecution

__all__ = ["SECTIONS", "Difference", "differences", "surroundings", "told"]

SECTIONS = ("outcome", "code", "configuration", "inputs", "environment", "packages", "metrics")
"""The parts of what is compared, in the order in which they are shown."""

OUR_OWN = ("DERIVA_ML_EXECUTIONS",)
"""Variables by which processes of one run know each other; they differ always and change nothing."""

Told = dict[str, dict[str, Any]]
"""What is told of one execution: values by name, by section."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that two executions do not share; None where one has none of that name."""

    section: str
    name: str
    left: Any
    right: Any

    def as_json(self) -> dict[str, Any]:
        """Its value for programs."""
        return asdict(self)


def told(ml: DerivaML, rid: str) -> Told:
    """All of an execution that can be compared.

    Raises:
        InvalidRID, UnknownRID, WrongTable: There is no such execution.
    """
    execution = ml.lookup_execution(rid)
    assets = execution.list_assets()
    snapshot = environment_of(ml, execution, assets)
    environment = snapshot.get("environment") or {}
    return {
        "outcome": _outcome(execution),
        "code": _code(ml, execution, assets, snapshot),
        "configuration": _configuration(ml, execution, assets),
        "inputs": _inputs(execution, assets),
        **surroundings(environment),
        "metrics": _metrics(ml, execution, assets),
    }


def differences(left: Told, right: Told) -> list[Difference]:
    """What differs, section by section, in the order of the names there."""
    return [
        Difference(section, name, left[section].get(name), right[section].get(name))
        for section in SECTIONS
        if section in left and section in right
        for name in dict.fromkeys((*left[section], *right[section]))
        if not _same(left[section].get(name), right[section].get(name))
    ]


def _same(left: Any, right: Any) -> bool:
    return bool(left == right) or (left != left and right != right)  # NaN differs from nothing but numbers


def _outcome(execution: RecordedExecution) -> dict[str, Any]:
    return {
        "description": execution.description,
        "status": str(execution.status),
        "status detail": execution.status_detail,
        "duration in seconds": parsed_duration(execution.duration),
    }


def _code(
    ml: DerivaML, execution: RecordedExecution, assets: list[Asset], snapshot: Mapping[str, Any]
) -> dict[str, Any]:
    source, repository = snapshot.get("source") or {}, snapshot.get("repository") or {}
    workflow = ml.lookup_workflow(execution.workflow_rid) if execution.workflow_rid else None
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


def _configuration(ml: DerivaML, execution: RecordedExecution, assets: list[Asset]) -> dict[str, Any]:
    parameters = configuration_of(ml, execution, assets).get("parameters") or {}
    with kept_file(ml, assets, FACTS_FILE, here=execution.working_dir / FACTS_FILE) as file:
        fits = [fit for fit in read_json(file).get("fits") or [] if isinstance(fit, dict)]
    found = dict(_flat(parameters, ""))
    for fit in fits:
        name = "fit" if len(fits) == 1 else f"fit {fit.get('fit')}"
        found |= _flat({"epochs": fit.get("epochs"), **(fit.get("settings") or {})}, name)
    return found


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Nested values by dotted names."""
    if isinstance(value, dict) and (value or not name):
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _inputs(execution: RecordedExecution, assets: list[Asset]) -> dict[str, Any]:
    versions: dict[str, list[str]] = {}
    for spec in execution.list_input_datasets():
        versions.setdefault(spec.rid, []).append(spec.version or "?")
    datasets = {f"dataset {rid}": ", ".join(sorted(found)) for rid, found in versions.items()}
    files = {f"{each.table} {each.rid}": each.filename for each in assets if each.role == Role.input}
    return datasets | files


def surroundings(environment: Mapping[str, Any]) -> Told:
    """What an environment snapshot's own part tells, as the sections ``environment`` and ``packages``."""
    return {"environment": _environment(environment), "packages": dict(environment.get("packages") or {})}


def _environment(environment: Mapping[str, Any]) -> dict[str, Any]:
    python = environment.get("python") or {}
    plain = ("platform", "hostname", "user", "working_directory", "processors_usable", "memory_bytes", "gpus")
    return {
        "command": " ".join(environment.get("argv") or []) or None,
        "python": python.get("version"),
        "python's folder": python.get("prefix"),
        **{name.replace("_", " "): environment.get(name) for name in plain},
        **{f"${name}": value for name, value in (environment.get("variables") or {}).items() if name not in OUR_OWN},
    }


def _metrics(ml: DerivaML, execution: RecordedExecution, assets: list[Asset]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for curve in curves_of(ml, execution, assets):
        name = curve.name if curve.stage == "fit" else f"{curve.stage} {curve.name}"
        found[f"{name}, last"] = curve.last  # that of the last fit stays
        if curve.stage == "fit":
            found[f"{name}, best"] = curve.best
    return found
