"""Catalogs in which a user's program is killed: an embedded one, and one on a server."""

from __future__ import annotations

import copy
import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pluggy
from fail_points import in_child
from filelock import FileLock

from deriva_ml_core.client import DerivaML
from deriva_ml_core.schema import Column
from fakes.deriva_server import DerivaServer

__all__ = ["EmbeddedWorld", "ServerWorld", "World"]

Work = Callable[[DerivaML], None]


class World(Protocol):
    """A catalog as it was made, and the copy of it in which a program is killed.

    ``copy`` is the folder in which the program keeps what it has on this machine.
    """

    copy: Path
    stride: int
    """One of how many steps is tried where not all are: requests take longer than calls."""

    def open(self, plugins: pluggy.PluginManager | None = None) -> DerivaML: ...
    def fresh(self) -> None:
        """Have the copy as the catalog was made."""

    def keep(self) -> Any:
        """Note how the copy is now."""

    def back(self, kept: Any) -> None:
        """Have the copy again as it was noted."""

    def objects(self) -> dict[str, bytes]:
        """What is in the store, by MD5."""

    def check_locks(self, rid: str) -> None:
        """Fail where anybody holds the journal or the catalog."""

    def run(self, work: Work, last: int | None = None) -> list[str] | None:
        """Do some work in a child; see `fail_points.in_child`."""


def prepare(ml: DerivaML) -> None:
    """What the programs take for granted."""
    ml.create_asset("Scan", columns=[Column("Angle", "float8")])
    ml.add_dataset_element_type("Image")


class EmbeddedWorld:
    """An embedded catalog.

    Args:
        folder: Where it lies.
    """

    stride = 1

    def __init__(self, folder: Path) -> None:
        self.made, self.copy = folder / "made", folder / "copy"
        with DerivaML(f"file:{self.made}") as ml:
            prepare(ml)

    def open(self, plugins: pluggy.PluginManager | None = None) -> DerivaML:
        return DerivaML(f"file:{self.copy}", plugins=plugins)

    def fresh(self) -> None:
        self.back(self.made)

    def keep(self) -> Path:
        kept = self.copy.with_name("kept")
        shutil.rmtree(kept, ignore_errors=True)
        return Path(shutil.copytree(self.copy, kept, symlinks=True))

    def back(self, kept: Path) -> None:
        # the staged paths in the journal are absolute, so the same place is used again
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(kept, self.copy, symlinks=True)

    def objects(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.copy / "objects").rglob("*") if path.is_file()}

    def check_locks(self, rid: str) -> None:
        with FileLock(self.copy / "executions" / rid / "journal.jsonl.lock", timeout=0):
            pass
        with sqlite3.connect(self.copy / "catalog.sqlite", timeout=0) as catalog:
            catalog.execute("BEGIN IMMEDIATE")

    def run(self, work: Work, last: int | None = None) -> list[str] | None:
        return in_child(work, self.copy, self.open, last)


class ServerWorld:
    """A catalog on a fake server, for one who may write to it and is not its owner.

    Args:
        folder: Where working folders lie.
        fake: The server.
    """

    stride = 9

    def __init__(self, folder: Path, fake: DerivaServer) -> None:
        self.copy, self._fake = folder / "copy", fake
        rights = {"enumerate": ["test2"], "write": ["test2"]}
        with DerivaML.create(fake.hostname, "demo", acls=rights, credential=fake.credential()) as ml:
            prepare(ml)
            self._made = str(ml.connection.address.catalog_id)
        fake.hatrac.namespaces[""].acl["subtree-owner"] = ["test2"]
        self._number = self._made

    def open(self, plugins: pluggy.PluginManager | None = None) -> DerivaML:
        login = self._fake.credential("test2")
        return DerivaML(self._fake.hostname, self._number, credential=login, working_dir=self.copy, plugins=plugins)

    def make(self, plugins: pluggy.PluginManager | None = None, number: str | None = None) -> DerivaML:
        """Make another catalog, or complete one."""
        login = self._fake.credential()
        return DerivaML.create(self._fake.hostname, "demo", catalog_id=number, credential=login, plugins=plugins)

    @property
    def newest(self) -> str:
        """The number of the catalog that was made last."""
        return max(self._fake.ermrest.numbers, key=int)

    def fresh(self) -> None:
        shutil.rmtree(self.copy, ignore_errors=True)
        self.copy.mkdir()
        self._take(self._made, {})

    def keep(self) -> Any:
        kept = self.copy.with_name("kept")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.copy, kept, symlinks=True)
        number = self._fake.ermrest.copy_of(self._number)
        return kept, number, copy.deepcopy(self._fake.hatrac.objects)

    def back(self, kept: Any) -> None:
        folder, number, objects = kept
        shutil.rmtree(self.copy)
        shutil.copytree(folder, self.copy, symlinks=True)
        self._take(number, copy.deepcopy(objects))

    def _take(self, number: str, objects: Any) -> None:
        if self._number != self._made:
            self._fake.ermrest.drop(self._number)
        self._number = self._fake.ermrest.copy_of(number)
        self._fake.hatrac.objects = objects
        self._fake.hatrac.jobs.clear()

    def objects(self) -> dict[str, bytes]:
        held = self._fake.hatrac.objects.values()
        versions = [list(one.versions.values()) for one in held]
        assert all(len(each) <= 1 for each in versions), "an object was stored twice"
        found = [version.file.read_bytes() for each in versions for version in each]
        return {hashlib.md5(content).hexdigest(): content for content in found}

    def check_locks(self, rid: str) -> None:
        with FileLock(self.copy / "executions" / rid / "journal.jsonl.lock", timeout=0):
            pass

    def run(self, work: Work, last: int | None = None) -> list[str] | None:
        taken = in_child(work, self.copy, self.open, last)
        self._fake.settle()
        return taken
