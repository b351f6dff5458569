"""Where the tests of the remote backend run: a fake Deriva server, or the one that the environment names.

``DERIVA_ML_TEST_HOST`` names a real server, ``DERIVA_ML_TEST_CATALOG`` a catalog of it that may be filled with rows
(else catalogs are made and deleted), ``DERIVA_ML_TEST_CREDENTIAL`` the login as JSON (else the user's stored one is
taken). Objects go into a namespace of the run's own, which is deleted: Hatrac never gives a deleted name again.
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

__all__ = ["Place", "fake_place", "real_place"]

PLUGIN = Path(__file__).with_name("live")


@dataclass(frozen=True)
class Place:
    """A server to test on.

    Args:
        hostname: What a client is given to reach it.
        login: What logs in; None for what the user has stored.
        root: The namespace for objects.
        fake: The server itself, where it is a fake one.
        given: The number of a catalog that may be filled with rows, and stays.
        made: The numbers of the catalogs that were made, and are not deleted yet.
    """

    hostname: str
    login: Mapping[str, str] | None = None
    root: str = "/hatrac"
    fake: DerivaServer | None = None
    given: str | None = None
    made: list[str] = field(default_factory=list)

    def server(self) -> Server:
        """The server, for a session of its own; a fake one is asked again without a wait."""
        server = server_from_address(self.address)
        if self.fake is not None:
            server.sleep = lambda _: None
        return server

    def store(self) -> DerivaStore:
        """The objects."""
        return DerivaStore(self.server(), self.root)

    def open(self, number: str, **more: Any) -> DerivaML:
        """A client of a catalog."""
        return DerivaML(self.hostname, number, credential=self.login, **more)

    def catalog(self) -> str:
        """The number of a catalog with the standard tables and terms: the one that was given, or a new one."""
        return self.given or self.noted(create_or_extend_catalog(self.address, "deriva_ml_test"))

    def noted(self, number: str) -> str:
        """Take note of a catalog that was made here."""
        self.made.append(number)
        return number

    def own_catalogs(self) -> None:
        """Skip a test that makes catalogs, where one was given so that none are made."""
        if self.given is not None:
            pytest.skip("it makes catalogs of its own, and DERIVA_ML_TEST_CATALOG names the one to use")

    def drop(self, number: str) -> None:
        """Delete a catalog that was made here."""
        self.made.remove(number)
        self.send("DELETE", f"/ermrest/catalog/{number}")

    def send(self, method: str, path: str, given: Any = None) -> Any:
        """Ask the server, and return what JSON it answers."""
        body = b"" if given is None else json.dumps(given).encode()
        headers = {"Content-Type": "application/json"}
        response = self.server().request(method, path, headers=headers, body=body)
        assert response.status_code < 400, (method, path, response.text)
        with suppress(ValueError):
            return response.json()
        return None

    def folders(self, home: Path) -> Path:
        """Where the working folders of all its catalogs lie below a home."""
        return home / server_from_address(self.address).host.replace(":", "_")

    @property
    def address(self) -> Address:
        """The server, without a catalog."""
        login = None if self.login is None else {key: SecretStr(value) for key, value in self.login.items()}
        return Address(hostname=self.hostname, credential=login)


@contextmanager
def fake_place(folder: Path) -> Iterator[Place]:
    """A fake server that runs while the block does, with its objects in a folder."""
    with serving(folder) as fake:
        yield Place(fake.hostname, fake.credential(), fake=fake)


@contextmanager
def real_place(environ: Mapping[str, str]) -> Iterator[Place]:
    """The server that the environment names; what was made on it is deleted afterwards."""
    login = environ.get("DERIVA_ML_TEST_CREDENTIAL")
    namespace = f"/hatrac/deriva-ml-test-{uuid4().hex[:12]}"
    place = Place(
        environ["DERIVA_ML_TEST_HOST"],
        json.loads(login) if login else None,
        root=f"{namespace}/hatrac",  # so that a URL holds /hatrac/<table>, as everywhere
        given=environ.get("DERIVA_ML_TEST_CATALOG") or None,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PLUGIN)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(PLUGIN), *filter(None, [environ.get("PYTHONPATH")])]))
        patch.setenv("DERIVA_ML_TEST_NAMESPACE", place.root)
        plugin_manager.cache_clear()
        try:
            yield place
        finally:
            plugin_manager.cache_clear()
            sys.modules.pop("deriva_ml_test_namespace", None)
            place.server().request("DELETE", namespace)
            for number in place.made[:]:
                place.drop(number)
