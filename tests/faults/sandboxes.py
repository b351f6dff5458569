"""Catalogs in which a program is killed: an embedded one, and one on a server."""

from __future__ import annotations

import copy
import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pluggy
from fail_points import Step, in_child
from filelock import FileLock

from deriva_ml_core.client import DerivaML
from deriva_ml_core.schema import Column
from fakes.deriva_server import DerivaServer

__all__ = ["EmbeddedSandbox", "Sandbox", "ServerSandbox"]

Work = Callable[[DerivaML], None]


class Sandbox(Protocol):
    """A catalog in its initial state, and a copy of it in which a program is killed.

    ``copy`` is the folder with the local files of the program.
    """

    copy: Path
    stride: int
    """Only every n-th step is tried where not all are, since server requests take longer than calls."""

    def open(self, plugins: pluggy.PluginManager | None = None) -> DerivaML: ...
    def reset(self) -> None:
        """Reset the copy to the initial state."""

    def save(self) -> Any:
        """Save the state of the copy."""

    def restore(self, saved: Any) -> None:
        """Restore a saved state."""

    def objects(self) -> dict[str, bytes]:
        """Return the content of the store by MD5."""

    def check_locks(self, rid: str) -> None:
        """Fail if a process holds a lock on the journal or the catalog."""

    def run(self, work: Work, last: Step | int | None = None) -> list[str] | None:
        """Run a function in a child; see `fail_points.in_child`."""


def prepare(ml: DerivaML) -> None:
    """Create the tables that the programs need."""
    ml.create_asset("Scan", columns=[Column("Angle", "float8")])
    ml.add_dataset_element_type("Image")


class EmbeddedSandbox:
    """A sandbox with an embedded catalog.

    Args:
        folder: The folder of the sandbox.
    """

    stride = 1

    def __init__(self, folder: Path) -> None:
        self.initial, self.copy = folder / "initial", folder / "copy"
        with DerivaML(f"file:{self.initial}") as ml:
            prepare(ml)

    def open(self, plugins: pluggy.PluginManager | None = None) -> DerivaML:
        return DerivaML(f"file:{self.copy}", plugins=plugins)

    def reset(self) -> None:
        self.restore(self.initial)

    def save(self) -> Path:
        saved = self.copy.with_name("saved")
        shutil.rmtree(saved, ignore_errors=True)
        return Path(shutil.copytree(self.copy, saved, symlinks=True))

    def restore(self, saved: Path) -> None:
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(saved, self.copy, symlinks=True)

    def objects(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.copy / "objects").rglob("*") if path.is_file()}

    def check_locks(self, rid: str) -> None:
        with FileLock(self.copy / "executions" / rid / "journal.jsonl.lock", timeout=0):
            pass
        with sqlite3.connect(self.copy / "catalog.sqlite", timeout=0) as catalog:
            catalog.execute("BEGIN IMMEDIATE")

    def run(self, work: Work, last: Step | int | None = None) -> list[str] | None:
        return in_child(work, self.copy, self.open, last)


class ServerSandbox:
    """A sandbox with a catalog on a fake server, opened by a user who can write to it and is not its owner.

    Args:
        folder: The folder of the working folders.
        fake: The server.
    """

    stride = 9

    def __init__(self, folder: Path, fake: DerivaServer) -> None:
        self.copy, self._fake = folder / "copy", fake
        rights = {"enumerate": ["test2"], "write": ["test2"]}
        with DerivaML.create(fake.hostname, "demo", acls=rights, credential=fake.credential()) as ml:
            prepare(ml)
            self._initial = str(ml.connection.address.catalog_id)
        fake.hatrac.namespaces[""].acl["subtree-owner"] = ["test2"]
        self._number = self._initial

    def open(self, plugins: pluggy.PluginManager | None = None) -> DerivaML:
        login = self._fake.credential("test2")
        return DerivaML(self._fake.hostname, self._number, credential=login, working_dir=self.copy, plugins=plugins)

    def make(self, plugins: pluggy.PluginManager | None = None, number: str | None = None) -> DerivaML:
        """Create another catalog, or complete an existing one."""
        login = self._fake.credential()
        return DerivaML.create(self._fake.hostname, "demo", catalog_id=number, credential=login, plugins=plugins)

    @property
    def newest(self) -> str:
        """The id of the newest catalog."""
        return max(self._fake.ermrest.numbers, key=int)

    def reset(self) -> None:
        shutil.rmtree(self.copy, ignore_errors=True)
        self.copy.mkdir()
        self._take(self._initial, {})

    def save(self) -> Any:
        saved = self.copy.with_name("saved")
        shutil.rmtree(saved, ignore_errors=True)
        shutil.copytree(self.copy, saved, symlinks=True)
        number = self._fake.ermrest.copy_of(self._number)
        return saved, number, copy.deepcopy(self._fake.hatrac.objects)

    def restore(self, saved: Any) -> None:
        folder, number, objects = saved
        shutil.rmtree(self.copy)
        shutil.copytree(folder, self.copy, symlinks=True)
        self._take(number, copy.deepcopy(objects))

    def _take(self, number: str, objects: Any) -> None:
        if self._number != self._initial:
            self._fake.ermrest.drop(self._number)
        self._number = self._fake.ermrest.copy_of(number)
        self._fake.hatrac.objects = objects
        self._fake.hatrac.jobs.clear()

    def objects(self) -> dict[str, bytes]:
        stored_objects = self._fake.hatrac.objects.values()
        versions = [list(one.versions.values()) for one in stored_objects]
        assert all(len(each) <= 1 for each in versions), "an object was stored twice"
        found = [version.file.read_bytes() for each in versions for version in each]
        return {hashlib.md5(content).hexdigest(): content for content in found}

    def check_locks(self, rid: str) -> None:
        with FileLock(self.copy / "executions" / rid / "journal.jsonl.lock", timeout=0):
            pass

    def run(self, work: Work, last: Step | int | None = None) -> list[str] | None:
        steps = in_child(work, self.copy, self.open, last)
        self._fake.wait_until_idle()
        return steps
