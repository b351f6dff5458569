"""Opening and creating catalogs on a Deriva server."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from deriva.core import get_credential

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


def test_open_catalog(ml: DerivaML, catalog: DerivaCatalog, fake: DerivaServer, home: Path) -> None:
    """A host and a number open a catalog in one request, with working folders in DERIVA_ML_HOME."""
    assert [f"{request.method} {request.path}" for request in fake.requests] == [
        f"GET /ermrest/catalog/{catalog.catalog_id}/schema"
    ]
    assert ml.connection.folder.is_relative_to(home)
    assert "Execution" in ml.connection.catalog.model.tables


def test_creation_in_few_requests(connect, fake: DerivaServer) -> None:
    """Creating a catalog with schema and terms takes at most 8 requests."""
    catalog = create_catalog(connect(), "demo")
    assert len(fake.requests) <= 8
    assert catalog.model.table("Model").schema == "demo"
    for vocabulary, prefix in (("Asset_Type", "demo"), ("Workflow_Type", "deriva-ml")):
        assert all(row["ID"] == f"{prefix}:{row['RID']}" for row in catalog.select(vocabulary))
    fake.requests.clear()
    create_catalog(connect(), "demo")
    assert catalog.catalog_id == "1"


def test_hook_create_catalog(fake: DerivaServer) -> None:
    """DerivaML.create creates and opens a catalog with the given access control lists."""
    ml = DerivaML.create(fake.hostname, "demo", acls={"enumerate": ["*"]}, credential=fake.credential())
    assert ml.connection.address.catalog_id == "1"
    assert ml.connection.catalog.select("Asset_Role", {"Name": "Output"})
    assert fake.ermrest.catalog("1").acls["enumerate"] == ["*"]


def test_create_embedded_catalog() -> None:
    """DerivaML.create of an embedded catalog raises an error: opening it creates it."""
    with pytest.raises(ConfigurationError, match="first opens"):
        DerivaML.create("file:here", "demo")


@pytest.mark.parametrize("project", ["", "deriva-ml", "public", "_x"])
def test_invalid_project_name(connect, fake: DerivaServer, project: str) -> None:
    """An invalid project name is rejected before any request."""
    with pytest.raises(ConfigurationError, match="project"):
        create_catalog(connect(), project)
    assert fake.requests == []


@pytest.mark.parametrize(
    ("hostname", "url"),
    [
        ("server.org", "https://server.org"),
        ("https://Server.org/", "https://server.org"),
        ("localhost:8080", "https://localhost:8080"),
        ("http://localhost:8080", "http://localhost:8080"),
    ],
)
def test_addresses(hostname: str, url: str) -> None:
    """A server is reached over https, and over http only on this machine."""
    assert server_from_address(Address(hostname=hostname, credential={})).url == url


@pytest.mark.parametrize(
    "hostname", ["http://server.org", "https://a b", "https://server.org/path", "https://u:p@server.org"]
)
def test_invalid_addresses(hostname: str) -> None:
    """Addresses that are no host name, or that send the login unencrypted, raise UnknownAddress."""
    with pytest.raises(UnknownAddress, match="https://"):
        server_from_address(Address(hostname=hostname, credential={}))


def test_no_such_catalog(fake: DerivaServer) -> None:
    """A number without a catalog raises UnknownAddress."""
    with pytest.raises(UnknownAddress, match="catalog 99"):
        DerivaML(fake.hostname, "99", credential=fake.credential())


@pytest.mark.parametrize(
    "credential",
    [
        {"cookie": "secret"},
        {"cookie": "=secret"},
        {"cookie": "webauthn=secret\r\nX: y"},
        {"cookie": None},
        {"cookie": "wäbauthn=secret"},
        {"bearer-token": ""},
        {"bearer-token": "secret\n"},
        {"bearer-token": 7},
        {"bearer_token": "secret"},
        {"token": "secret"},
        "secret",
        ["secret"],
    ],
)
def test_invalid_credential(fake: DerivaServer, credential: object) -> None:
    """A login that cannot be sent is an error that names the valid forms and not the login, before any request."""
    with pytest.raises(ConfigurationError, match=r"\{'bearer-token': '<token>'\} or \{'cookie': 'webauthn=") as raised:
        DerivaML(fake.hostname, "1", credential=credential)  # type: ignore[arg-type]
    assert "secret" not in str(raised.value)
    assert fake.requests == []


def test_no_login(fake: DerivaServer, catalog: DerivaCatalog) -> None:
    """A user without a login is told how to log in."""
    with pytest.raises(LoginRequired, match=r"deriva-globus-auth-utils login --host localhost"):
        DerivaML(fake.hostname, catalog.catalog_id, credential={"cookie": "webauthn=garbage"})


def test_user_without_access(fake: DerivaServer, connect) -> None:
    """The error for a user without access names the missing permission."""
    number = create_catalog(connect(), "private").catalog_id
    with pytest.raises(AccessRefused, match=rf"enumerate access on catalog/{number}"):
        DerivaML(fake.hostname, number, credential=fake.credential("test2"))


def test_user_may_not_create_catalogs(fake: DerivaServer) -> None:
    """The error for a user who may not create catalogs says whom to ask for what, and how to open an existing one."""
    message = (
        rf"This user may not create catalogs on localhost:{fake.port} \(catalog\)\. Ask its administrator for that "
        rf"right, or .* call DerivaML\('http://localhost:{fake.port}', number\)"
    )
    with pytest.raises(AccessRefused, match=message):
        DerivaML.create(fake.hostname, "demo", credential=fake.credential("test2"))


def test_unreachable_server() -> None:
    """The error for an unreachable server has the reason, without names of Python objects."""
    with pytest.raises(CatalogUnavailable, match=r"localhost:9 cannot be reached \(Failed to establish"):
        DerivaML("http://localhost:9", "1", credential={})


def test_catalog_without_schema(fake: DerivaServer, connect) -> None:
    """A catalog without the schema raises an error that lists what is missing."""
    connect().request("POST", "/ermrest/catalog", body=b"{}")
    with pytest.raises(ConfigurationError, match=r"lacks Workflow; .*Execution"):
        DerivaML(fake.hostname, "1", credential=fake.credential())


def test_a_snapshot_is_read_only(fake: DerivaServer, catalog: DerivaCatalog) -> None:
    """A snapshot can be opened, and rejects writes."""
    past = DerivaML(fake.hostname, f"{catalog.catalog_id}@{catalog.snapshot()}", credential=fake.credential())
    assert past.connection.catalog.select("Workflow_Type", {"Name": "Training"})
    with pytest.raises(CatalogReadOnly, match="snapshot"):
        past.add_term("Workflow_Type", "New", "")


def test_pickle_has_no_login(ml: DerivaML) -> None:
    """A pickled address contains no secret."""
    assert b"test2" not in pickle.dumps(ml.connection.address)


def test_import_loads_no_client_library() -> None:
    """The client library is only loaded when a server is named."""
    code = (
        "import deriva_ml_core.plugins.builtin.connect, sys; print('deriva' in sys.modules, 'requests' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False False\n"


def test_certificates_are_verified() -> None:
    """Certificates are verified, also on localhost."""
    for host in ("localhost", "server.org"):
        with server_from_address(Address(hostname=host, credential={}))._borrow_session() as binding:
            assert binding.session.verify is True


@pytest.mark.parametrize("days", [-1, 1])
def test_server_with_other_clock(ml: DerivaML, fake: DerivaServer, catalog: DerivaCatalog, days: int) -> None:
    """A server clock that is ahead or behind does not change the record of a run."""
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


@pytest.fixture
def stored_login(tmp_path: Path, fake: DerivaServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that stores the cookie of a session as the user's login."""
    file = tmp_path / "user" / ".deriva" / "credential.json"
    file.parent.mkdir(parents=True)
    # deriva-py has read the home folder at its import, which an earlier test of this process may have caused
    monkeypatch.setattr(get_credential, "__defaults__", (str(file), *(get_credential.__defaults__ or ())[1:]))
    host = fake.hostname.removeprefix("http://")

    def store(session: str) -> None:
        file.write_text(json.dumps({host: {"cookie": f"webauthn={session}"}}))

    return store


def test_renewed_login_is_used(
    catalog: DerivaCatalog, fake: DerivaServer, stored_login: Callable[[str], None], workflow: Workflow, tmp_path: Path
) -> None:
    """A running process whose session has expired uses the login that the user has stored meanwhile."""
    stored_login("test1")
    ml = DerivaML(fake.hostname, catalog.catalog_id)
    exe = ml.create_execution(ExecutionConfiguration(workflow=workflow))
    fake.sessions["renewed"] = fake.sessions.pop("test1")
    fake.requests.clear()
    with pytest.raises(LoginRequired):
        ml.select_rows("Execution")
    assert len(fake.requests) == 1  # the stored login is the one that has expired
    stored_login("renewed")
    assert [row["RID"] for row in ml.select_rows("Execution")] == [exe.execution_rid]
    with exe:
        exe.asset_file_path("Model", "model.pt").write_bytes(bytes(range(256)) * 400)
    fake.sessions["third"] = fake.sessions.pop("renewed")
    stored_login("third")
    exe.upload_execution_outputs()
    (row,) = ml.select_rows("Model")
    assert ml.download_asset(row["RID"], tmp_path).read_bytes() == bytes(range(256)) * 400


def test_given_login_is_not_replaced(
    catalog: DerivaCatalog, fake: DerivaServer, stored_login: Callable[[str], None]
) -> None:
    """A login that the program gave is not replaced by the stored one, which may be another user's."""
    ml = DerivaML(fake.hostname, catalog.catalog_id, credential=fake.credential())
    fake.sessions["renewed"] = fake.sessions.pop("test1")
    stored_login("renewed")
    with pytest.raises(LoginRequired):
        ml.select_rows("Execution")
