"""The mission document's blocks and promises hold on a Deriva server, with a login that the user has stored."""

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
from places import Place
from test_document import *  # noqa: F403  its tests are collected here too, with the fixtures below

LEFT_OUT = {
    "test_every_block_is_tested": "it is about the document alone",
    "test_hydra_zen_configuration": "hydra-zen's store takes a name once in a process; no catalog has a part in it",
}
globals().update(dict.fromkeys(LEFT_OUT))


class Host(str):
    """A host, shown with its catalog's number, as a program names both."""

    number = ""

    def __repr__(self) -> str:
        return f"{str(self)!r}, {self.number!r}"


def make(place: Place, folder: Path) -> str:
    """A catalog that has what the document takes for granted, with its working folders below a folder."""
    number = place.register_catalog(create_or_extend_catalog(place.address, "project"))

    def opened(plugins: pluggy.PluginManager | None) -> DerivaML:
        return place.open(number, plugins=plugins, working_dir=folder / number)

    (folder / number).mkdir(parents=True)
    document_world.create_catalog(folder / number, opened)
    return number


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, place: Place) -> tuple[str, Path]:
    """That catalog as it was made, on a server which can copy it."""
    folder = tmp_path_factory.mktemp("document")
    return make(place, folder), folder


@pytest.fixture
def host(place: Place, home: Path, request: pytest.FixtureRequest) -> Iterator[Host]:
    """Where such a catalog is, for one test."""
    place.require_new_catalogs()
    host, working = Host(place.hostname), place.working_folders(home)
    if place.fake is None:
        host.number = make(place, working)
    else:
        number, folder = request.getfixturevalue("made")
        host.number = place.register_catalog(place.fake.ermrest.copy_of(number))
        shutil.copytree(folder / number / "executions", working / host.number / "executions")
    yield host
    place.delete_catalog(host.number)


@pytest.fixture(autouse=True)
def login(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's login, stored where the client library keeps it, for this process and for those that it starts."""
    if place.login is None:
        return
    stored = tmp_path / "user" / ".deriva" / "credential.json"
    stored.parent.mkdir(parents=True)
    stored.write_text(json.dumps({place.server().host: place.login}))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    # the client library looked for the home when it was imported
    monkeypatch.setattr("deriva.core.get_credential", lambda host, **_: json.loads(stored.read_text())[host])
