"""The mission document's blocks and promises hold on a Deriva server, with a login that the user has stored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pluggy
import pytest

import document_world
from deriva_ml_core.backends.remote import create_on_server
from deriva_ml_core.client import DerivaML
from deriva_ml_core.models import Address
from fakes.deriva_server import DerivaServer, serving
from test_document import *  # noqa: F403  its tests are collected here too, with the fixtures below

LEFT_OUT = {
    "test_no_block_is_left_out": "it is about the document alone",
    "test_a_hydra_zen_configuration": "hydra-zen's store takes a name once in a process; no catalog has a part in it",
}
globals().update(dict.fromkeys(LEFT_OUT))


class Place(str):
    """A host, shown with its catalog's number, as a program names both."""

    number = ""

    def __repr__(self) -> str:
        return f"{str(self)!r}, {self.number!r}"


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DerivaServer]:
    with serving(tmp_path_factory.mktemp("hatrac")) as server:
        yield server


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, fake: DerivaServer) -> tuple[str, Path]:
    """The number of the catalog that the document takes for granted, as it was made, and its working folders."""
    folder = tmp_path_factory.mktemp("document")
    number = create_on_server(Address(hostname=fake.hostname, credential=fake.credential()), "project")

    def opened(plugins: pluggy.PluginManager | None) -> DerivaML:
        login = fake.credential()
        return DerivaML(fake.hostname, number, credential=login, plugins=plugins, working_dir=folder)

    document_world.make_catalog(folder, opened)
    return number, folder


@pytest.fixture
def host(fake: DerivaServer, made: tuple[str, Path], home: Path) -> Place:
    """Where a copy of it is."""
    number, folder = made
    place = Place(fake.hostname)
    place.number = fake.ermrest.copy_of(number)
    working = home / f"localhost_{fake.port}" / place.number
    shutil.copytree(folder / "executions", working / "executions")
    return place


@pytest.fixture(autouse=True)
def login(fake: DerivaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's login, stored where the client library keeps it, for this process and for those that it starts."""
    stored = tmp_path / "user" / ".deriva" / "credential.json"
    stored.parent.mkdir(parents=True)
    stored.write_text(json.dumps({fake.hostname.removeprefix("http://"): fake.credential()}))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    # the client library looked for the home when it was imported
    monkeypatch.setattr("deriva.core.get_credential", lambda host, **_: json.loads(stored.read_text())[host])
