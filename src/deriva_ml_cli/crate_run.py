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

from deriva_ml_cli.crate_words import is_web
from deriva_ml_core.definitions import Status

if TYPE_CHECKING:
    from deriva_ml_cli.account import Account, Code
    from deriva_ml_cli.crate_words import CrateWords

__all__ = ["CrateRun"]

PYTHON = "https://www.python.org"
CLIENT = "deriva-ml-core"
DOCKER_IMAGE = "https://w3id.org/ro/terms/workflow-run#DockerImage"
WORKFLOW = ["File", "SoftwareSourceCode", "ComputationalWorkflow"]

STATUSES: Mapping[Status, str] = MappingProxyType(
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
        account: The execution.
        words: The crate.
    """

    account: Account
    words: CrateWords

    def instrument(self) -> Any:
        """The file of code, held by the crate or named by its URL; else the image, or no more than a name."""
        code = self.account.code
        if code is None:
            return self.words.entity("#code", "SoftwareApplication", {"name": "Not on record"})
        facts: dict[str, Any] = {
            "name": code.name,
            "description": code.description,
            "keywords": code.kind,
            "version": code.version or self.account.commit or code.checksum,
            "url": code.url if is_web(code.url) else None,
            "identifier": _swhid(code.checksum),
        }
        if code.image:
            return self.words.entity(code.citation, "SoftwareApplication", facts)
        facts |= {"programmingLanguage": self._language(code.filename), "softwareRequirements": [self._client()]}
        if code.content is not None:
            name = code.filename if code.filename.strip(".") else "code"
            return self.words.included(f"code/{name}", code.content, WORKFLOW, facts)
        if is_web(code.url):
            return self.words.part(code.url, WORKFLOW, facts)
        return self.words.entity(code.citation, "SoftwareSourceCode", facts)

    def action(self, instrument: Any) -> Any:
        """What ran: when, by whom, how it ended."""
        account, code = self.account, self.account.code
        failed = account.status in (Status.failed, Status.aborted)
        told = f"Execution {account.rid}: {account.status}"
        facts = {
            "name": account.title,
            "description": f"{told}, {account.detail}" if account.detail else told,
            "identifier": account.rid,
            "instrument": instrument,
            "agent": self.person(),
            "startTime": _time(account.started),
            "endTime": _time(account.stopped),
            "actionStatus": f"http://schema.org/{STATUSES.get(account.status, 'PotentialActionStatus')}",
            "error": (account.detail or str(account.status)) if failed else None,
            "environment": list(self._variables()),
            "containerImage": self._image(code) if code is not None and code.image else None,
        }
        return self.words.entity(account.citation, "CreateAction", facts)

    def settings(self) -> tuple[list[Any], list[Any]]:
        """What it was configured with, and the parameters of the code that each of the settings was given for."""
        settings, parameters = [], []
        for name, value in _leaves(self.account.parameters):
            mark = quote(name, safe="")
            facts = {"name": name, "additionalType": _kind(value), "workExample": {"@id": f"#setting-{mark}"}}
            parameters.append(self.words.entity(f"#parameter-{mark}", "FormalParameter", facts))
            facts = {"name": name, "value": _plain(value), "exampleOfWork": {"@id": f"#parameter-{mark}"}}
            settings.append(self.words.entity(f"#setting-{mark}", "PropertyValue", facts))
        return settings, parameters

    def metrics(self) -> Iterator[Any]:
        """Where its metrics stood at the end."""
        for each in self.account.metrics:
            for word, value in (("last", each.last), ("best", each.best)):
                if value is not None:
                    mark = quote(f"{each.stage}-{each.name}-{word}", safe="")
                    facts = {"name": f"{each.name}, {word} ({each.stage})", "value": value}
                    yield self.words.entity(f"#metric-{mark}", "PropertyValue", facts)

    def _language(self, filename: str) -> Any:
        if not filename or filename.endswith((".py", ".ipynb")):
            told = (self.account.environment.get("python") or {}).get("version")
            return self.words.entity(PYTHON, "ComputerLanguage", {"name": "Python", "url": PYTHON, "version": told})
        name = Path(filename).suffix[1:] or filename
        return self.words.entity(f"#language-{quote(name, safe='')}", "ComputerLanguage", {"name": name})

    def _client(self) -> Any:
        """This software, in the version that recorded the run."""
        used = (self.account.environment.get("packages") or {}).get(CLIENT)
        facts = {"name": CLIENT, "softwareVersion": used}
        return self.words.entity(f"pkg:pypi/{CLIENT}" + (f"@{used}" if used else ""), "SoftwareApplication", facts)

    def person(self) -> Any:
        """Who ran it; None where nobody is on record."""
        person = self.account.person
        if person is None:
            return None
        named = person.client if person.client and is_web(person.client) else f"#{quote(person.name, safe='')}"
        return self.words.entity(named, "Person", {"name": person.name, "email": person.email})

    def _image(self, code: Code) -> Any:
        host, _, name = code.url.rpartition("@")[0].partition("/") if "@" in code.url else code.url.partition("/")
        is_host = "." in host or ":" in host
        facts = {
            "additionalType": {"@id": DOCKER_IMAGE},
            "registry": host if is_host else "docker.io",
            "name": name if is_host else "/".join(filter(None, (host, name))),
            "sha256": code.checksum.removeprefix("sha256:"),
        }
        return self.words.entity(f"#image-{quote(code.url, safe='')}", "ContainerImage", facts)

    def _variables(self) -> Iterator[Any]:
        """The environment variables, without those that name a folder of that machine."""
        for name, value in (self.account.environment.get("variables") or {}).items():
            if str(value).startswith(("/", "~")):
                continue
            facts = {"name": str(name), "value": str(value)}
            yield self.words.entity(f"#variable-{quote(str(name), safe='')}", "PropertyValue", facts)


def _swhid(checksum: str) -> str:
    """What Software Heritage calls a file by git's hash of it; another checksum as it is."""
    return f"swh:1:cnt:{checksum}" if re.fullmatch(r"[0-9a-f]{40}", checksum) else checksum


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="milliseconds")


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and (value or not name):
        for key, part in value.items():
            yield from _leaves(part, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _kind(value: Any) -> str:
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


def _plain(value: Any) -> Any:
    """A setting as JSON-LD takes it: what is no single value, or no number, is told by its text."""
    if isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return json.dumps(value)
