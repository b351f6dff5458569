"""Export of a run as W3C PROV: entities, activities and agents, in PROV-JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from deriva_ml_core._lazy import require_extra
from deriva_ml_core.connection import Connection
from deriva_ml_core.export.contents import DatasetVersion, ExecutionExport
from deriva_ml_core.models import Asset

if TYPE_CHECKING:
    from prov.model import ProvDocument


__all__ = ["build_prov_document", "to_prov_json"]

SCHEMA_ORG = "https://schema.org/"
RUN_TERMS = "https://w3id.org/ro/terms/workflow-run#"


def to_prov_json(connection: Connection, export: ExecutionExport) -> str:
    """Return a run as PROV-JSON text: https://www.w3.org/submissions/prov-json/."""
    content = build_prov_document(connection, export).serialize(format="json") or "{}"
    return json.dumps(json.loads(content), indent=2) + "\n"


def build_prov_document(connection: Connection, export: ExecutionExport) -> ProvDocument:
    """Return a run as a PROV document: https://www.w3.org/TR/prov-dm/.

    Args:
        connection: The catalog.
        export: The run.
    """
    with require_extra("export", "PROV"):
        from prov.model import ProvDocument

    document = ProvDocument()
    document.add_namespace("run", export.citation.removesuffix(export.rid))
    document.add_namespace("schema", SCHEMA_ORG)
    document.add_namespace("wfrun", RUN_TERMS)
    document.add_namespace("local", f"{export.citation}/")
    activity = document.activity(
        f"run:{export.rid}", export.started, export.stopped, _drop_empty(_iter_activity_attributes(export))
    )
    _add_agents(document, export, activity)
    for asset in export.inputs:
        document.used(activity, _add_file(connection, document, asset))
    for dataset in export.input_datasets:
        document.used(activity, _add_dataset(document, dataset))
    for asset in (*export.outputs, *export.records):
        document.wasGeneratedBy(_add_file(connection, document, asset), activity, export.stopped)
    for dataset in export.output_datasets:
        document.wasGeneratedBy(_add_dataset(document, dataset), activity, export.stopped)
    for parent in export.parents:
        informant = document.activity(f"run:{parent.removeprefix(export.citation.removesuffix(export.rid))}")
        document.wasInformedBy(activity, informant)
    return document


def _iter_activity_attributes(export: ExecutionExport) -> Iterator[tuple[str, Any]]:
    yield "prov:label", export.title
    yield "schema:actionStatus", str(export.status)
    yield "schema:disambiguatingDescription", export.status_detail
    for tag in export.tags:
        yield "schema:keywords", tag
    for metric in export.metrics:
        for kind, value in (("last", metric.last), ("best", metric.best)):
            if value is not None and math.isfinite(value):
                yield f"local:{kind}/{quote(metric.stage, safe='')}/{quote(metric.name, safe='')}", value


def _add_agents(document: ProvDocument, export: ExecutionExport, activity: Any) -> None:
    """Add the person and their plan, and the software that recorded the run on their behalf."""
    from prov.model import PROV

    plan = _add_plan(document, export)
    version = (export.environment.get("packages") or {}).get("deriva-ml-core")
    software = document.agent(
        "local:deriva-ml-core",
        _drop_empty(
            [
                ("prov:type", PROV["SoftwareAgent"]),
                ("prov:label", "deriva-ml-core"),
                ("schema:softwareVersion", version),
            ]
        ),
    )
    document.wasAssociatedWith(activity, software)
    if export.agent is not None:
        attributes = [
            ("prov:type", PROV["Person"]),
            ("prov:label", export.agent.name),
            ("schema:email", export.agent.email),
            ("schema:identifier", export.agent.catalog_user),
        ]
        person = document.agent(f"local:{quote(export.agent.name, safe='')}", _drop_empty(attributes))
        document.wasAssociatedWith(activity, person, plan)
        document.actedOnBehalfOf(software, person, activity)


def _add_plan(document: ProvDocument, export: ExecutionExport) -> Any:
    from prov.model import PROV

    if export.code is None:
        return None
    code = export.code
    attributes = [
        ("prov:type", PROV["Plan"]),
        ("prov:label", code.name),
        ("prov:location", code.url),
        ("schema:version", code.version or export.commit),
        ("schema:identifier", f"swh:1:cnt:{code.checksum}" if code.checksum and not code.is_image else code.checksum),
    ]
    rid = code.citation.removeprefix(export.citation.removesuffix(export.rid))
    return document.entity(f"run:{rid}", _drop_empty(attributes))


def _add_file(connection: Connection, document: ProvDocument, asset: Asset) -> Any:
    from prov.model import XSD, Literal

    attributes = [
        ("prov:label", asset.filename),
        ("prov:location", connection.store.source(asset.url)),
        ("schema:contentSize", Literal(asset.length, XSD["long"])),
        ("wfrun:md5", asset.md5),
        *(("schema:keywords", asset_type) for asset_type in asset.asset_types),
    ]
    return document.entity(f"run:{asset.rid}", _drop_empty(attributes))


def _add_dataset(document: ProvDocument, dataset: DatasetVersion) -> Any:
    from prov.model import PROV

    attributes = [
        ("prov:type", PROV["Collection"]),
        ("prov:label", dataset.description or f"Dataset {dataset.rid}"),
        ("prov:location", dataset.citation),
        ("schema:version", dataset.version),
    ]
    return document.entity(f"local:dataset/{dataset.rid}/{dataset.version}", _drop_empty(attributes))


def _drop_empty(attributes: Any) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in attributes if value not in (None, "")]
