"""An execution as W3C PROV: entities, activities and agents, as PROV-JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from deriva_ml_cli.account import Account, DatasetVersion
from deriva_ml_core.models import Asset

if TYPE_CHECKING:
    from prov.model import ProvDocument

    from deriva_ml_core.client import DerivaML

__all__ = ["prov_document"]

SCHEMA = "https://schema.org/"
RUN_TERMS = "https://w3id.org/ro/terms/workflow-run#"


def prov_document(ml: DerivaML, account: Account) -> ProvDocument:
    """Tell an execution in the words of https://www.w3.org/TR/prov-dm/.

    Args:
        ml: The catalog, whose record ids name what there is.
        account: The execution.
    """
    from prov.model import ProvDocument

    document = ProvDocument()
    document.add_namespace("run", account.citation.removesuffix(account.rid))
    document.add_namespace("schema", SCHEMA)
    document.add_namespace("wfrun", RUN_TERMS)
    document.add_namespace("local", f"{account.citation}/")
    activity = document.activity(
        f"run:{account.rid}", account.started, account.stopped, _given(_activity_facts(account))
    )
    _agents(document, account, activity)
    for asset in account.inputs:
        document.used(activity, _file(ml, document, asset))
    for dataset in account.datasets:
        document.used(activity, _dataset(document, dataset))
    for asset in (*account.outputs, *account.records):
        document.wasGeneratedBy(_file(ml, document, asset), activity, account.stopped)
    for dataset in account.made:
        document.wasGeneratedBy(_dataset(document, dataset), activity, account.stopped)
    for parent in account.parents:
        informant = document.activity(f"run:{parent.removeprefix(account.citation.removesuffix(account.rid))}")
        document.wasInformedBy(activity, informant)
    return document


def _activity_facts(account: Account) -> Iterator[tuple[str, Any]]:
    yield "prov:label", account.title
    yield "schema:actionStatus", str(account.status)
    yield "schema:disambiguatingDescription", account.detail
    for metric in account.metrics:
        for word, value in (("last", metric.last), ("best", metric.best)):
            if value is not None and math.isfinite(value):
                yield f"local:{word}/{quote(metric.stage, safe='')}/{quote(metric.name, safe='')}", value


def _agents(document: ProvDocument, account: Account, activity: Any) -> None:
    """Who ran it, by what plan, and the software that recorded it, which acts for who runs it."""
    from prov.model import PROV

    plan = _plan(document, account)
    used = (account.environment.get("packages") or {}).get("deriva-ml-core")
    software = document.agent(
        "local:deriva-ml-core",
        _given(
            [("prov:type", PROV["SoftwareAgent"]), ("prov:label", "deriva-ml-core"), ("schema:softwareVersion", used)]
        ),
    )
    document.wasAssociatedWith(activity, software)
    if account.person is not None:
        facts = [
            ("prov:type", PROV["Person"]),
            ("prov:label", account.person.name),
            ("schema:email", account.person.email),
            ("schema:identifier", account.person.client),
        ]
        person = document.agent(f"local:{quote(account.person.name, safe='')}", _given(facts))
        document.wasAssociatedWith(activity, person, plan)
        document.actedOnBehalfOf(software, person, activity)


def _plan(document: ProvDocument, account: Account) -> Any:
    from prov.model import PROV

    if account.code is None:
        return None
    code = account.code
    facts = [
        ("prov:type", PROV["Plan"]),
        ("prov:label", code.name),
        ("prov:location", code.url),
        ("schema:version", code.version or account.commit),
        ("schema:identifier", f"swh:1:cnt:{code.checksum}" if code.checksum and not code.image else code.checksum),
    ]
    rid = code.citation.removeprefix(account.citation.removesuffix(account.rid))
    return document.entity(f"run:{rid}", _given(facts))


def _file(ml: DerivaML, document: ProvDocument, asset: Asset) -> Any:
    from prov.model import XSD, Literal

    facts = [
        ("prov:label", asset.filename),
        ("prov:location", ml.connection.store.source(asset.url)),
        ("schema:contentSize", Literal(asset.length, XSD["long"])),
        ("wfrun:md5", asset.md5),
        *(("schema:keywords", each) for each in asset.asset_types),
    ]
    return document.entity(f"run:{asset.rid}", _given(facts))


def _dataset(document: ProvDocument, dataset: DatasetVersion) -> Any:
    from prov.model import PROV

    facts = [
        ("prov:type", PROV["Collection"]),
        ("prov:label", dataset.description or f"Dataset {dataset.rid}"),
        ("prov:location", dataset.citation),
        ("schema:version", dataset.version),
    ]
    return document.entity(f"local:dataset/{dataset.rid}/{dataset.version}", _given(facts))


def _given(facts: Any) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in facts if value not in (None, "")]
