"""Export of a run as a Workflow Run RO-Crate: a folder with files and a description of the run in JSON-LD."""

from __future__ import annotations

import hashlib
import json
import math
import mimetypes
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from itertools import repeat
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from deriva_ml_core._files.atomic import atomic_path, scratch_folder
from deriva_ml_core._lazy import require_extra
from deriva_ml_core._text import format_count, sanitize_line
from deriva_ml_core.analysis.run_files import safe_file_name
from deriva_ml_core.assets.lookup import download_asset
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import Status, status_traits
from deriva_ml_core.export.contents import Code, DatasetVersion, ExecutionExport
from deriva_ml_core.models import Asset

__all__ = [
    "DEFAULT_LICENSE",
    "PROFILES",
    "CrateBuilder",
    "CrateFiles",
    "CrateRun",
    "EntityType",
    "guess_media_type",
    "is_web_url",
    "unwrap_single",
    "write_crate",
]


WORKFLOW_CRATE_PROFILE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"

PROFILES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
        "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
        WORKFLOW_CRATE_PROFILE: ("Workflow RO-Crate", "1.0"),
    }
)
"""The profiles with their names and versions. A crate without a file of code conforms to the first one only."""

EXTRA_TERMS: Mapping[str, str] = MappingProxyType(
    {
        "ContainerImage": "https://w3id.org/ro/terms/workflow-run#ContainerImage",
        "containerImage": "https://w3id.org/ro/terms/workflow-run#containerImage",
        "environment": "https://w3id.org/ro/terms/workflow-run#environment",
        "md5": "https://w3id.org/ro/terms/workflow-run#md5",
        "registry": "https://w3id.org/ro/terms/workflow-run#registry",
    }
)
"""Terms that the context of RO-Crate lacks; they are written into the crate so that readers need no other context."""

DEFAULT_LICENSE = "Not stated by the run: ask its owner."


def write_crate(
    connection: Connection,
    export: ExecutionExport,
    target: Path,
    *,
    included_roles: frozenset[str],
    license_: str,
    as_zip: bool,
) -> Path:
    """Write a run as an RO-Crate.

    Args:
        connection: The catalog.
        export: The run.
        target: The folder or archive to create.
        included_roles: The roles of the files to include: ``records``, ``inputs``, ``outputs``. Other files are
            referenced by URL.
        license_: The licence of the content, as a URL or a text.
        as_zip: Whether to write a ZIP archive.

    Returns:
        The folder or archive.
    """
    with require_extra("export", "An RO-Crate"):
        from rocrate.rocrate import ROCrate  # type: ignore[import-untyped]

    crate = ROCrate(version="1.1")  # the version that the profiles are based on
    crate.metadata.extra_terms.update(EXTRA_TERMS)
    with scratch_folder(connection.folder) as download_folder:
        builder = CrateBuilder(crate)
        files = CrateFiles(connection, builder, download_folder, included_roles)
        run = CrateRun(export, builder)
        action, code = _add_run_entities(export, run, files)
        _describe_root(crate, export, run, license_, action, code)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target, durable=True, keep_suffix=True) as partial:
            (crate.write_zip if as_zip else crate.write)(partial)
    return target


def _add_run_entities(export: ExecutionExport, run: CrateRun, files: CrateFiles) -> tuple[Any, Any]:
    """Add the run as an action, and return it with the entity of its file of code, if there is one."""
    instrument = run.add_instrument()
    settings, parameters = run.add_settings()
    action = run.add_action(instrument)
    inputs = [*files.add_assets("inputs", export.inputs), *(files.add_dataset(each) for each in export.input_datasets)]
    outputs = [
        *files.add_assets("outputs", export.outputs),
        *(files.add_dataset(each) for each in export.output_datasets),
    ]
    _set_property(action, "object", [*inputs, *settings])
    _set_property(action, "result", [*outputs, *run.add_metrics()])
    _set_property(action, "subjectOf", files.add_assets("records", export.records))
    code = instrument if "ComputationalWorkflow" in instrument.type else None
    if code is not None:
        _set_property(code, "input", parameters)
    return action, code


def _describe_root(crate: Any, export: ExecutionExport, run: CrateRun, license_: str, action: Any, code: Any) -> None:
    root, builder = crate.root_dataset, run.builder
    root["name"] = export.title
    root["description"] = f"Execution {export.rid} as recorded in its catalog: {export.citation}"
    license_id = license_ if is_web_url(license_) else "#license"
    root["license"] = builder.add_context_entity(
        license_id, "CreativeWork", {"name": license_, "description": "The licence"}
    )
    root["identifier"] = export.citation
    if export.tags:
        root["keywords"] = ", ".join(export.tags)
    root["mentions"] = action
    if (person := run.add_agent()) is not None:
        root["author"] = person
    profile_urls = [url for url in PROFILES if code is not None or "/process/" in url]
    profiles = ({"name": PROFILES[url][0], "version": PROFILES[url][1]} for url in profile_urls)
    _set_property(
        root, "conformsTo", list(map(builder.add_context_entity, profile_urls, repeat("CreativeWork"), profiles))
    )
    if code is not None:
        root["mainEntity"] = code
        crate.metadata["conformsTo"] = [{"@id": crate.metadata.profile}, {"@id": WORKFLOW_CRATE_PROFILE}]
    about = {"about": {"@id": "./"}}
    builder.add_file("README.md", _build_readme(export).encode(), "File", about)


def _set_property(entity: Any, name: str, values: list[Any]) -> None:
    if values:
        entity[name] = unwrap_single(values)


def _build_readme(export: ExecutionExport) -> str:
    """Return the text of the crate's README.md."""
    code = export.code
    return "\n".join(
        [
            f"# {sanitize_line(export.title)}",
            "",
            f"This RO-Crate describes one run: execution {export.rid}, cited as",
            f"<{export.citation}>. `ro-crate-metadata.json` describes it for programs.",
            "",
            f"- status: {export.status}",
            f"- code: {sanitize_line(code.url or code.name) if code else 'not recorded'}",
            f"- inputs: {format_count(len(export.inputs), 'file')}, "
            f"{format_count(len(export.input_datasets), 'dataset')}",
            f"- outputs: {format_count(len(export.outputs), 'file')}, "
            f"{format_count(len(export.output_datasets), 'dataset')}",
            "",
        ]
    )


EntityType = str | list[str]
"""One or more types of schema.org."""


@dataclass(frozen=True, slots=True)
class CrateBuilder:
    """Adds entities to a crate, without properties that are None or empty.

    Args:
        crate: A crate of the library `rocrate`.
    """

    crate: Any

    def add_file(
        self, crate_path: str, source: Path | bytes, entity_type: EntityType, properties: Mapping[str, Any]
    ) -> Any:
        """Add a file to the crate, with its size and SHA-256.

        Args:
            crate_path: Its path in the crate.
            source: The file, or its bytes.
            entity_type: Its type.
            properties: Its other properties.
        """
        if isinstance(source, Path):
            with source.open("rb") as file:
                digest, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
        else:
            digest, size = hashlib.sha256(source).hexdigest(), len(source)
        all_properties = {
            "encodingFormat": guess_media_type(crate_path),
            **properties,
            "contentSize": str(size),
            "sha256": digest,
        }
        content = source if isinstance(source, Path) else BytesIO(source)
        return self.crate.add_file(content, crate_path, properties=_build_properties(all_properties, entity_type))

    def add_remote_data(self, url: str, entity_type: EntityType, properties: Mapping[str, Any]) -> Any:
        """Add a file or a dataset that is not part of the crate, by its URL."""
        from rocrate.model.data_entity import DataEntity  # type: ignore[import-untyped]

        return self.crate.add(DataEntity(self.crate, url, _build_properties(properties, entity_type)))

    def add_context_entity(self, identifier: str, entity_type: EntityType, properties: Mapping[str, Any]) -> Any:
        """Add an entity that is not a file, such as a person."""
        from rocrate.model.contextentity import ContextEntity  # type: ignore[import-untyped]

        return self.crate.add(ContextEntity(self.crate, identifier, _build_properties(properties, entity_type)))


def guess_media_type(name: str) -> str:
    """Return the media type that belongs to a file name."""
    ending = name[name.rfind(".") :].lower() if "." in name else ""
    unregistered = {".jsonl": "application/jsonl", ".md": "text/markdown", ".ipynb": "application/x-ipynb+json"}
    return unregistered.get(ending) or mimetypes.guess_type(name, strict=False)[0] or "application/octet-stream"


def unwrap_single(value: Any) -> Any:
    """Return the only element of a list of one; other values unchanged."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def is_web_url(url: str) -> bool:
    """Whether a URL can be opened from any machine."""
    return url.startswith(("http://", "https://"))


def _build_properties(properties: Mapping[str, Any], entity_type: EntityType) -> dict[str, Any]:
    return {
        "@type": entity_type,
        **{name: unwrap_single(value) for name, value in properties.items() if value not in (None, "", [])},
    }


@dataclass(frozen=True, slots=True)
class CrateFiles:
    """Adds the files of a run to a crate.

    Args:
        connection: The catalog.
        builder: The crate.
        download_folder: A folder for downloads.
        included_roles: The roles of the files to include: ``records``, ``inputs``, ``outputs``.
    """

    connection: Connection
    builder: CrateBuilder
    download_folder: Path
    included_roles: frozenset[str]

    def add_assets(self, role: str, assets: Iterable[Asset]) -> list[Any]:
        """Add the files of one role."""
        return [self._add_asset(role, asset) for asset in assets]

    def add_dataset(self, dataset: DatasetVersion) -> Any:
        """Add a reference to a version of a dataset."""
        facts = {
            "name": dataset.description or f"Dataset {dataset.rid}",
            "version": dataset.version,
            "identifier": dataset.rid,
        }
        return self.builder.add_remote_data(dataset.citation, "Dataset", facts)

    def _add_asset(self, role: str, asset: Asset) -> Any:
        url = self.connection.store.source(asset.url)
        facts = {
            "name": asset.filename,
            "contentSize": str(asset.length),
            "md5": asset.md5,
            "encodingFormat": guess_media_type(asset.filename),
            "keywords": ", ".join(asset.asset_types),
            "identifier": self.connection.catalog.cite(asset.rid),
        }
        if role not in self.included_roles:
            return self.builder.add_remote_data(url, "File", facts)
        file = download_asset(self.connection, asset, self.download_folder)
        crate_path = f"{role}/{asset.table}/{asset.rid}/{safe_file_name(asset)}"
        return self.builder.add_file(
            crate_path, file, "File", {**facts, "contentUrl": url if is_web_url(url) else None}
        )


PYTHON_URL = "https://www.python.org"
CLIENT_PACKAGE = "deriva-ml-core"
DOCKER_IMAGE = "https://w3id.org/ro/terms/workflow-run#DockerImage"
WORKFLOW_TYPES = ["File", "SoftwareSourceCode", "ComputationalWorkflow"]


@dataclass(frozen=True, slots=True)
class CrateRun:
    """Adds the run itself to a crate: action, code, settings, metrics and person.

    Args:
        export: The run.
        builder: The crate.
    """

    export: ExecutionExport
    builder: CrateBuilder

    def add_instrument(self) -> Any:
        """Add the code: the file itself, its URL, the container image, or only the name of the workflow."""
        code = self.export.code
        if code is None:
            return self.builder.add_context_entity("#code", "SoftwareApplication", {"name": "Not recorded"})
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
        """Add the run as an action: when it ran, who ran it, how it ended."""
        export, code = self.export, self.export.code
        failed = export.status in (Status.failed, Status.aborted)
        outcome = f"Execution {export.rid}: {export.status}"
        facts = {
            "name": export.title,
            "description": f"{outcome}, {export.status_detail}" if export.status_detail else outcome,
            "identifier": export.rid,
            "keywords": ", ".join(export.tags),
            "instrument": instrument,
            "agent": self.add_agent(),
            "startTime": _format_iso_time(export.started),
            "endTime": _format_iso_time(export.stopped),
            "actionStatus": f"http://schema.org/{status_traits(export.status).schema_org}",
            "error": (export.status_detail or str(export.status)) if failed else None,
            "environment": list(self._add_variables()),
            "containerImage": self._add_image(code) if code is not None and code.is_image else None,
        }
        return self.builder.add_context_entity(export.citation, "CreateAction", facts)

    def add_settings(self) -> tuple[list[Any], list[Any]]:
        """Add the settings of the run, and the parameters of the code that they are values of."""
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
        """Add the last and best value of each metric."""
        for metric in self.export.metrics:
            for kind, value in (("last", metric.last), ("best", metric.best)):
                if value is not None:
                    mark = quote(f"{metric.stage}-{metric.name}-{kind}", safe="")
                    facts = {"name": f"{metric.name}, {kind} ({metric.stage})", "value": value}
                    yield self.builder.add_context_entity(f"#metric-{mark}", "PropertyValue", facts)

    def _add_language(self, filename: str) -> Any:
        if not filename or filename.endswith((".py", ".ipynb")):
            version = (self.export.environment.get("python") or {}).get("version")
            return self.builder.add_context_entity(
                PYTHON_URL, "ComputerLanguage", {"name": "Python", "url": PYTHON_URL, "version": version}
            )
        name = Path(filename).suffix[1:] or filename
        return self.builder.add_context_entity(f"#language-{quote(name, safe='')}", "ComputerLanguage", {"name": name})

    def _add_client(self) -> Any:
        """Add this software, in the version that recorded the run."""
        version = (self.export.environment.get("packages") or {}).get(CLIENT_PACKAGE)
        facts = {"name": CLIENT_PACKAGE, "softwareVersion": version}
        return self.builder.add_context_entity(
            f"pkg:pypi/{CLIENT_PACKAGE}" + (f"@{version}" if version else ""), "SoftwareApplication", facts
        )

    def add_agent(self) -> Any:
        """Add the person who ran it; None if unknown."""
        person = self.export.agent
        if person is None:
            return None
        identifier = (
            person.catalog_user
            if person.catalog_user and is_web_url(person.catalog_user)
            else f"#{quote(person.name, safe='')}"
        )
        return self.builder.add_context_entity(identifier, "Person", {"name": person.name, "email": person.email})

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
        """Add the environment variables, without those that name a folder of the machine."""
        for name, value in (self.export.environment.get("variables") or {}).items():
            if str(value).startswith(("/", "~")):
                continue
            facts = {"name": str(name), "value": str(value)}
            yield self.builder.add_context_entity(f"#variable-{quote(str(name), safe='')}", "PropertyValue", facts)


def _software_heritage_id(checksum: str) -> str:
    """Return the Software Heritage identifier of a Git hash; other checksums unchanged."""
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
    """Return the schema.org data type of a setting."""
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
    """Return a setting's value for JSON-LD: lists, NaN and infinity become JSON text."""
    if isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return json.dumps(value)
