"""Server for the tests of the Deriva backend: a fake one, or the one that the environment names.

``DERIVA_ML_TEST_HOST`` is the host name of a real server, ``DERIVA_ML_TEST_CATALOG`` the number of a catalog that tests
may add rows to, and ``DERIVA_ML_TEST_CREDENTIAL`` the login as JSON (default: the stored login). Without
``DERIVA_ML_TEST_CATALOG``, the account must be able to create catalogs, which are deleted afterwards. Objects are
stored in a namespace of the test run, which is deleted too, because Hatrac never reuses a deleted name.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from deriva_ml_core.backends.deriva import create_or_extend_catalog
from deriva_ml_core.backends.deriva.http import Server
from deriva_ml_core.backends.deriva.open import server_from_address
from deriva_ml_core.backends.deriva.store import DerivaStore
from deriva_ml_core.client import DerivaML
from deriva_ml_core.models import Address
from deriva_ml_core.plugins import plugin_manager
from fakes.deriva_server import DerivaServer, serving

__all__ = ["RemoteServer", "fake_server", "real_server"]

PLUGIN = Path(__file__).with_name("live")


@dataclass(frozen=True)
class RemoteServer:
    """A server for tests.

    Args:
        hostname: Host name that clients use.
        login: Credential, or None for the stored one.
        root: Namespace of the objects.
        fake: The fake server, or None for a real one.
        existing_catalog: Number of an existing catalog that tests may add rows to, and that is not deleted.
        created_catalogs: Numbers of created catalogs that are not deleted yet.
    """

    hostname: str
    login: Mapping[str, str] | None = None
    root: str = "/hatrac"
    fake: DerivaServer | None = None
    existing_catalog: str | None = None
    created_catalogs: list[str] = field(default_factory=list)

    def connect(self) -> Server:
        """Return the server with a new session. Retries on a fake server do not wait."""
        server = server_from_address(self.address)
        if self.fake is not None:
            server.sleep = lambda _: None
        return server

    def store(self) -> DerivaStore:
        """Return the object store."""
        return DerivaStore(self.connect(), self.root)

    def open(self, number: str, **more: Any) -> DerivaML:
        """Return a client for a catalog."""
        return DerivaML(self.hostname, number, credential=self.login, **more)

    def catalog(self) -> str:
        """Return the number of the existing catalog, or of a new one with the standard tables and terms."""
        return self.existing_catalog or self.register_catalog(create_or_extend_catalog(self.address, "deriva_ml_test"))

    def register_catalog(self, number: str) -> str:
        """Register a created catalog for deletion."""
        self.created_catalogs.append(number)
        return number

    def require_new_catalogs(self) -> None:
        """Skip a test that creates catalogs if an existing catalog must be used."""
        if self.existing_catalog is not None:
            pytest.skip("creates catalogs, and DERIVA_ML_TEST_CATALOG names an existing one")

    def delete_catalog(self, number: str) -> None:
        """Delete a created catalog."""
        self.created_catalogs.remove(number)
        self.send("DELETE", f"/ermrest/catalog/{number}")

    def send(self, method: str, path: str, payload: Any = None) -> Any:
        """Send a request, and return the JSON of the response."""
        body = b"" if payload is None else json.dumps(payload).encode()
        headers = {"Content-Type": "application/json"}
        response = self.connect().request(method, path, headers=headers, body=body)
        assert response.status_code < 400, (method, path, response.text)
        with suppress(ValueError):
            return response.json()
        return None

    def working_folders(self, home: Path) -> Path:
        """Return the folder of the working folders of all its catalogs below a home folder."""
        return home / server_from_address(self.address).host.replace(":", "_")

    @property
    def address(self) -> Address:
        """Address of the server, without a catalog."""
        login = None if self.login is None else {key: SecretStr(value) for key, value in self.login.items()}
        return Address(hostname=self.hostname, credential=login)


@contextmanager
def fake_server(folder: Path) -> Iterator[RemoteServer]:
    """Run a fake server with its objects in a folder."""
    with serving(folder) as fake:
        yield RemoteServer(fake.hostname, fake.credential(), fake=fake)


@contextmanager
def real_server(environ: Mapping[str, str]) -> Iterator[RemoteServer]:
    """Return the server that the environment names, and delete what tests created on it."""
    login = environ.get("DERIVA_ML_TEST_CREDENTIAL")
    namespace = f"/hatrac/deriva-ml-test-{uuid4().hex[:12]}"
    remote_server = RemoteServer(
        environ["DERIVA_ML_TEST_HOST"],
        json.loads(login) if login else None,
        root=f"{namespace}/hatrac",  # URLs contain /hatrac/<table>, as in every backend
        existing_catalog=environ.get("DERIVA_ML_TEST_CATALOG") or None,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PLUGIN)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(PLUGIN), *filter(None, [environ.get("PYTHONPATH")])]))
        patch.setenv("DERIVA_ML_TEST_NAMESPACE", remote_server.root)
        plugin_manager.cache_clear()
        try:
            yield remote_server
        finally:
            plugin_manager.cache_clear()
            sys.modules.pop("deriva_ml_test_namespace", None)
            remote_server.connect().request("DELETE", namespace)
            for number in remote_server.created_catalogs[:]:
                remote_server.delete_catalog(number)
