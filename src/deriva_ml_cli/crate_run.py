"""The run of a crate: the action, the code that was its instrument, who ran it, its settings and its metrics."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from deriva_ml_cli.crate_words import is_web_url
from deriva_ml_core.definitions import Status

if TYPE_CHECKING:
    from deriva_ml_cli.account import Code, ExecutionExport
    from deriva_ml_cli.crate_words import CrateBuilder

__all__ = ["CrateRun"]

PYTHON_URL = "https://www.python.org"
CLIENT_PACKAGE = "deriva-ml-core"
DOCKER_IMAGE = "https://w3id.org/ro/terms/workflow-run#DockerImage"
WORKFLOW_TYPES = ["File", "SoftwareSourceCode", "ComputationalWorkflow"]

ACTION_STATUSES: Mapping[Status, str] = MappingProxyType(
    {
        Status.running: "ActiveActionStatus",
        Status.completed: "CompletedActionStatus",
        Status.failed: "FailedActionStatus",
        Status.aborted: "FailedActionStatus",
    }
)
"""What schema.org calls our states; it calls all others potential."""


@dataclass(frozen=True, slots=True)
class CrateRun:
    """Adds what is no file.

    Args:
        export: The execution.
        builder: The crate.
    """

    export: ExecutionExport
    builder: CrateBuilder

    def add_instrument(self) -> Any:
        """The file of code, held by the crate or named by its URL; else the image, or no more than a name."""
        code = self.export.code
        if code is None:
            return self.builder.add_context_entity("#code", "SoftwareApplication", {"name": "Not on record"})
        facts: dict[str, Any] = {
            "name": code.name,
            "description": code.description,
            "keywords": code.workflow_type,
            "version": code.version or self.export.commit or code.checksum,
            "url": code.url if is_web_url(code.url) else None,
            "identifier": _software_heritage_id(code.checksum),
        }
        if code.is_image:
            return self.builder.add_context_entity(code.citation, "SoftwareApplication", facts)
        facts |= {
            "programmingLanguage": self._add_language(code.filename),
            "softwareRequirements": [self._add_client()],
        }
        if code.content is not None:
            name = code.filename if code.filename.strip(".") else "code"
            return self.builder.add_file(f"code/{name}", code.content, WORKFLOW_TYPES, facts)
        if is_web_url(code.url):
            return self.builder.add_remote_data(code.url, WORKFLOW_TYPES, facts)
        return self.builder.add_context_entity(code.citation, "SoftwareSourceCode", facts)

    def add_action(self, instrument: Any) -> Any:
        """What ran: when, by whom, how it ended."""
        account, code = self.export, self.export.code
        failed = account.status in (Status.failed, Status.aborted)
        told = f"Execution {account.rid}: {account.status}"
        facts = {
            "name": account.title,
            "description": f"{told}, {account.status_detail}" if account.status_detail else told,
            "identifier": account.rid,
            "instrument": instrument,
            "agent": self.add_agent(),
            "startTime": _format_iso_time(account.started),
            "endTime": _format_iso_time(account.stopped),
            "actionStatus": f"http://schema.org/{ACTION_STATUSES.get(account.status, 'PotentialActionStatus')}",
            "error": (account.status_detail or str(account.status)) if failed else None,
            "environment": list(self._add_variables()),
            "containerImage": self._add_image(code) if code is not None and code.is_image else None,
        }
        return self.builder.add_context_entity(account.citation, "CreateAction", facts)

    def add_settings(self) -> tuple[list[Any], list[Any]]:
        """What it was configured with, and the parameters of the code that each of the settings was given for."""
        settings, parameters = [], []
        for name, value in _flatten(self.export.parameters):
            mark = quote(name, safe="")
            facts = {
                "name": name,
                "additionalType": _schema_org_type(value),
                "workExample": {"@id": f"#setting-{mark}"},
            }
            parameters.append(self.builder.add_context_entity(f"#parameter-{mark}", "FormalParameter", facts))
            facts = {"name": name, "value": _to_json_ld_value(value), "exampleOfWork": {"@id": f"#parameter-{mark}"}}
            settings.append(self.builder.add_context_entity(f"#setting-{mark}", "PropertyValue", facts))
        return settings, parameters

    def add_metrics(self) -> Iterator[Any]:
        """Where its metrics stood at the end."""
        for each in self.export.metrics:
            for word, value in (("last", each.last), ("best", each.best)):
                if value is not None:
                    mark = quote(f"{each.stage}-{each.name}-{word}", safe="")
                    facts = {"name": f"{each.name}, {word} ({each.stage})", "value": value}
                    yield self.builder.add_context_entity(f"#metric-{mark}", "PropertyValue", facts)

    def _add_language(self, filename: str) -> Any:
        if not filename or filename.endswith((".py", ".ipynb")):
            told = (self.export.environment.get("python") or {}).get("version")
            return self.builder.add_context_entity(
                PYTHON_URL, "ComputerLanguage", {"name": "Python", "url": PYTHON_URL, "version": told}
            )
        name = Path(filename).suffix[1:] or filename
        return self.builder.add_context_entity(f"#language-{quote(name, safe='')}", "ComputerLanguage", {"name": name})

    def _add_client(self) -> Any:
        """This software, in the version that recorded the run."""
        used = (self.export.environment.get("packages") or {}).get(CLIENT_PACKAGE)
        facts = {"name": CLIENT_PACKAGE, "softwareVersion": used}
        return self.builder.add_context_entity(
            f"pkg:pypi/{CLIENT_PACKAGE}" + (f"@{used}" if used else ""), "SoftwareApplication", facts
        )

    def add_agent(self) -> Any:
        """Who ran it; None where nobody is on record."""
        person = self.export.agent
        if person is None:
            return None
        named = (
            person.catalog_user
            if person.catalog_user and is_web_url(person.catalog_user)
            else f"#{quote(person.name, safe='')}"
        )
        return self.builder.add_context_entity(named, "Person", {"name": person.name, "email": person.email})

    def _add_image(self, code: Code) -> Any:
        host, _, name = code.url.rpartition("@")[0].partition("/") if "@" in code.url else code.url.partition("/")
        is_host = "." in host or ":" in host
        facts = {
            "additionalType": {"@id": DOCKER_IMAGE},
            "registry": host if is_host else "docker.io",
            "name": name if is_host else "/".join(filter(None, (host, name))),
            "sha256": code.checksum.removeprefix("sha256:"),
        }
        return self.builder.add_context_entity(f"#image-{quote(code.url, safe='')}", "ContainerImage", facts)

    def _add_variables(self) -> Iterator[Any]:
        """The environment variables, without those that name a folder of that machine."""
        for name, value in (self.export.environment.get("variables") or {}).items():
            if str(value).startswith(("/", "~")):
                continue
            facts = {"name": str(name), "value": str(value)}
            yield self.builder.add_context_entity(f"#variable-{quote(str(name), safe='')}", "PropertyValue", facts)


def _software_heritage_id(checksum: str) -> str:
    """What Software Heritage calls a file by git's hash of it; another checksum as it is."""
    return f"swh:1:cnt:{checksum}" if re.fullmatch(r"[0-9a-f]{40}", checksum) else checksum


def _format_iso_time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="milliseconds")


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and (value or not prefix):
        for key, part in value.items():
            yield from _flatten(part, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _schema_org_type(value: Any) -> str:
    """The data type of schema.org's that a setting has."""
    match value:
        case bool():
            return "Boolean"
        case int():
            return "Integer"
        case float():
            return "Float"
        case _:
            return "Text"


def _to_json_ld_value(value: Any) -> Any:
    """A setting as JSON-LD takes it: what is no single value, or no number, is told by its text."""
    if isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return json.dumps(value)
