"""A catalog on a server is opened by its address, made in few requests, and says what it lacks."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.backends.deriva.open import create_catalog, server_from_address
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import (
    AccessRefused,
    CatalogReadOnly,
    CatalogUnavailable,
    ConfigurationError,
    LoginRequired,
    UnknownAddress,
)
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import Address
from deriva_ml_core.workflow import Workflow
from fakes.deriva_server import DerivaServer


def test_opening(ml: DerivaML, catalog: DerivaCatalog, fake: DerivaServer, home: Path) -> None:
    """A host and a number open a catalog in one request, and its working folders lie under the home."""
    assert [f"{one.method} {one.path}" for one in fake.requests] == [
        f"GET /ermrest/catalog/{catalog.catalog_id}/schema"
    ]
    assert ml.connection.folder.is_relative_to(home)
    assert "Execution" in ml.connection.catalog.model.tables


def test_creation_in_few_requests(connect, fake: DerivaServer) -> None:
    """Catalog, schema and terms take at most 8 requests."""
    catalog = create_catalog(connect(), "demo")
    assert len(fake.requests) <= 8
    assert catalog.model.table("Model").schema == "demo"
    for vocabulary, prefix in (("Asset_Type", "demo"), ("Workflow_Type", "deriva-ml")):
        assert all(row["ID"] == f"{prefix}:{row['RID']}" for row in catalog.select(vocabulary))
    fake.requests.clear()
    create_catalog(connect(), "demo")
    assert catalog.catalog_id == "1"


def test_hook_create_catalog(fake: DerivaServer) -> None:
    """A project's catalog is made and opened by one call, with the rights that its maker gives."""
    made = DerivaML.create(fake.hostname, "demo", acls={"enumerate": ["*"]}, credential=fake.credential())
    assert made.connection.address.catalog_id == "1"
    assert made.connection.catalog.select("Asset_Role", {"Name": "Output"})
    assert fake.ermrest.catalog("1").acls["enumerate"] == ["*"]


def test_an_embedded_catalog_is_not_made_so() -> None:
    """An embedded catalog is made when it is opened, which is said."""
    with pytest.raises(ConfigurationError, match="first opens"):
        DerivaML.create("file:here", "demo")


@pytest.mark.parametrize("project", ["", "deriva-ml", "public", "_x"])
def test_a_project_that_cannot_be_named_so(connect, fake: DerivaServer, project: str) -> None:
    """A name that would be the server's own is refused before anything is made."""
    with pytest.raises(ConfigurationError, match="project"):
        create_catalog(connect(), project)
    assert fake.requests == []


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("server.org", "https://server.org"),
        ("https://Server.org/", "https://server.org"),
        ("localhost:8080", "https://localhost:8080"),
        ("http://localhost:8080", "http://localhost:8080"),
    ],
)
def test_addresses(given: str, url: str) -> None:
    """A server is reached over https, and over http where that is asked for on this machine."""
    assert server_from_address(Address(hostname=given, credential={})).url == url


@pytest.mark.parametrize(
    "given", ["http://server.org", "https://a b", "https://server.org/path", "https://u:p@server.org"]
)
def test_addresses_that_are_refused(given: str) -> None:
    """A login does not go over the network unencrypted, and a name that is none is an error."""
    with pytest.raises(UnknownAddress, match="https://"):
        server_from_address(Address(hostname=given, credential={}))


def test_no_such_catalog(fake: DerivaServer) -> None:
    """A number that names no catalog is an error that says so."""
    with pytest.raises(UnknownAddress, match="catalog 99"):
        DerivaML(fake.hostname, "99", credential=fake.credential())


def test_nobody_is_logged_in(fake: DerivaServer, catalog: DerivaCatalog) -> None:
    """Who is not known is told how to log in."""
    with pytest.raises(LoginRequired, match=r"deriva-globus-auth-utils login --host localhost"):
        DerivaML(fake.hostname, catalog.catalog_id, credential={"cookie": "webauthn=garbage"})


def test_a_user_without_rights(fake: DerivaServer, connect) -> None:
    """Who may not read a catalog is told which right is missing, on what."""
    number = create_catalog(connect(), "private").catalog_id
    with pytest.raises(AccessRefused, match=rf"enumerate access on catalog/{number}"):
        DerivaML(fake.hostname, number, credential=fake.credential("test2"))


def test_a_server_that_does_not_answer() -> None:
    """A server that is not there is an error that says what could not be reached, in no words of our code's."""
    with pytest.raises(CatalogUnavailable, match=r"localhost:9 cannot be reached \(Failed to establish"):
        DerivaML("http://localhost:9", "1", credential={})


def test_a_catalog_that_cannot_serve(fake: DerivaServer, connect) -> None:
    """A catalog without the schema is an error that names what is missing."""
    connect().request("POST", "/ermrest/catalog", body=b"{}")
    with pytest.raises(ConfigurationError, match=r"lacks Workflow; .*Execution"):
        DerivaML(fake.hostname, "1", credential=fake.credential())


def test_a_snapshot_is_read_only(fake: DerivaServer, catalog: DerivaCatalog) -> None:
    """A state of the past can be opened, and refuses writes."""
    past = DerivaML(fake.hostname, f"{catalog.catalog_id}@{catalog.snapshot()}", credential=fake.credential())
    assert past.connection.catalog.select("Workflow_Type", {"Name": "Training"})
    with pytest.raises(CatalogReadOnly, match="snapshot"):
        past.add_term("Workflow_Type", "New", "")


def test_the_login_is_in_no_pickle(ml: DerivaML) -> None:
    """What crosses to another process holds no secret."""
    assert b"test2" not in pickle.dumps(ml.connection.address)


def test_import_loads_no_client_library() -> None:
    """The client library is loaded only when a server is named."""
    code = (
        "import deriva_ml_core.plugins.builtin.connect, sys; print('deriva' in sys.modules, 'requests' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout == "False False\n"


def test_certificates_are_verified() -> None:
    """Also this machine's own server over https must show a certificate that is trusted."""
    for host in ("localhost", "server.org"):
        with server_from_address(Address(hostname=host, credential={}))._borrow_session() as binding:
            assert binding.session.verify is True


@pytest.mark.parametrize("days", [-1, 1])
def test_a_server_with_another_time(ml: DerivaML, fake: DerivaServer, catalog: DerivaCatalog, days: int) -> None:
    """A clock that goes before or after ours changes nothing of a run."""
    fake.ermrest.catalog(catalog.catalog_id).skew = days * 86_400_000_000
    workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/w.py", checksum="0" * 40)
    exe = ml.create_execution(ExecutionConfiguration(workflow=workflow, description="d"))
    with exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"weights")
    exe.upload_execution_outputs()
    (found,) = ml.find_executions()
    assert (found.execution_rid, found.status) == (exe.execution_rid, Status.completed)
    assert found.duration is not None
    assert ml.add_workflow(workflow) == found.workflow_rid
