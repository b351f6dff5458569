"""The mission document's code blocks and statements hold on a Deriva server, with a stored login."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pluggy
import pytest

import document_world
from deriva_ml_core.backends.deriva import create_or_extend_catalog
from deriva_ml_core.client import DerivaML
from remote_server import RemoteServer
from test_document import *  # noqa: F403  its tests are collected here too, with the fixtures below

LEFT_OUT = {
    "test_every_block_is_tested": "it is about the document alone",
    "test_hydra_zen_configuration": "hydra-zen's store takes a name once in a process; no catalog has a part in it",
}
globals().update(dict.fromkeys(LEFT_OUT))


class Host(str):
    """A host name whose repr also has its catalog's number, as programs pass both."""

    number = ""

    def __repr__(self) -> str:
        return f"{str(self)!r}, {self.number!r}"


def make_catalog(remote_server: RemoteServer, folder: Path) -> str:
    """Create a catalog with what the document presupposes, and its working folders in a folder."""
    number = remote_server.register_catalog(create_or_extend_catalog(remote_server.address, "project"))

    def open_client(plugins: pluggy.PluginManager | None) -> DerivaML:
        return remote_server.open(number, plugins=plugins, working_dir=folder / number)

    (folder / number).mkdir(parents=True)
    document_world.create_catalog(folder / number, open_client)
    return number


@pytest.fixture(scope="module")
def master_catalog(tmp_path_factory: pytest.TempPathFactory, remote_server: RemoteServer) -> tuple[str, Path]:
    """Return the number and folder of a catalog that the server can copy."""
    folder = tmp_path_factory.mktemp("document")
    return make_catalog(remote_server, folder), folder


@pytest.fixture
def host(remote_server: RemoteServer, home: Path, request: pytest.FixtureRequest) -> Iterator[Host]:
    """Yield a host with such a catalog for one test."""
    remote_server.require_new_catalogs()
    host, working = Host(remote_server.hostname), remote_server.working_folders(home)
    if remote_server.fake is None:
        host.number = make_catalog(remote_server, working)
    else:
        number, folder = request.getfixturevalue("master_catalog")
        host.number = remote_server.register_catalog(remote_server.fake.ermrest.copy_of(number))
        shutil.copytree(folder / number / "executions", working / host.number / "executions")
    yield host
    remote_server.delete_catalog(host.number)


@pytest.fixture(autouse=True)
def login(remote_server: RemoteServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store the user's login where the client library reads it, in this process and its children."""
    if remote_server.login is None:
        return
    stored = tmp_path / "user" / ".deriva" / "credential.json"
    stored.parent.mkdir(parents=True)
    stored.write_text(json.dumps({remote_server.connect().host: remote_server.login}))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    # the client library determined the home folder when it was imported
    monkeypatch.setattr("deriva.core.get_credential", lambda host, **_: json.loads(stored.read_text())[host])
