"""Staging and upload against a model: in any order of calls, each content is recorded once and none is lost."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from fail_points import MEMORY
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import FileConflict, MissingFiles
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

NAMES = st.sampled_from(["a", "b", "folder/c"])
ORIGINALS = st.sampled_from(["one", "two"])


class Staging(RuleBasedStateMachine):
    """One execution, and the expected state of its files.

    `staged` maps registered files to their originals, `contents` to the bytes that an upload must store, `originals`
    are the user's own files, and `written_later` the bytes written to files that stay after their upload.
    """

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory(dir=MEMORY)
        self.folder = Path(self.place.name)
        shutil.copytree(self.template, self.folder / "catalog")
        self.originals: dict[str, bytes] = {}
        self.staged: dict[str, str | None] = {}
        self.contents: dict[str, bytes | None] = {}
        self.written_later: dict[str, bytes] = {}
        self.uploaded: set[str] = set()
        self.recorded: set[tuple[str, str]] = set()
        self.count = 0
        self.ended = self.restored = False

    def client(self) -> DerivaML:
        return DerivaML(f"file:{self.folder}/catalog")

    @initialize()
    def begin(self) -> None:
        self.ml = self.client()
        workflow = Workflow(name="T", workflow_type="Training", url="https://example.org/t.py", checksum="c")
        self.exe = self.running = self.ml.create_execution(ExecutionConfiguration(workflow=workflow))
        self.running.__enter__()
        for name in ("one", "two"):
            self.change_original(name)

    def teardown(self) -> None:
        if hasattr(self, "exe"):
            if not self.ended:
                self.end()
            for name in [name for name in self.staged if self.bytes_of(name) is None]:
                self.forget(name)
            self.upload(clean=True)
            for asset in self.exe.list_assets("Output"):
                self.ml.verify_asset(asset)
            assert not (self.exe.working_dir / "outputs").exists() or self.forgotten_files()
        self.place.cleanup()

    # Expected state

    def new_content(self) -> bytes:
        """Return new bytes of a new length."""
        self.count += 1
        return bytes([65 + self.count % 26]) * self.count

    def path(self, name: str) -> Path:
        return self.exe.working_dir / "outputs" / "Model" / name

    def original(self, name: str) -> Path:
        return self.folder / f"{name}.original"

    def bytes_of(self, name: str) -> bytes | None:
        """Return the bytes that an upload must store for a staged file; for a link, the current original."""
        original = self.staged[name]
        if original is not None and self.path(name).is_symlink():
            return self.originals.get(original)
        return self.contents[name]

    def in_place(self, name: str) -> bool:
        return self.path(name).is_file() and not self.path(name).is_symlink()

    def forgotten_files(self) -> list[Path]:
        return [path for path in (self.exe.working_dir / "outputs").rglob("*") if path.is_file()]

    # Actions of a user

    @rule(name=NAMES)
    def register_new(self, name: str) -> None:
        if self.staged.get(name) is not None:
            with pytest.raises(FileConflict):
                self.exe.asset_file_path("Model", name)
            return
        existing = self.path(name).read_bytes() if self.in_place(name) else None
        assert self.exe.asset_file_path("Model", name) == self.path(name)
        if name not in self.staged:
            self.staged[name], self.contents[name] = None, existing
            self.written_later.pop(name, None)
            self.uploaded.discard(name)

    @rule(name=NAMES, original=ORIGINALS, copy=st.booleans())
    def register_original(self, name: str, original: str, copy: bool) -> None:
        if original not in self.originals:
            return
        path = self.original(original)
        if self.is_rejected(name, original, copy):
            with pytest.raises(FileConflict):
                self.exe.asset_file_path("Model", path, rename_file=name, copy_file=copy)
            return
        self.exe.asset_file_path("Model", path, rename_file=name, copy_file=copy)
        if name not in self.staged:
            self.staged[name], self.contents[name] = original, self.originals[original]
            self.uploaded.discard(name)

    def is_rejected(self, name: str, original: str, copy: bool) -> bool:
        """Whether registering the original would replace another file."""
        if name in self.staged:
            return self.staged[name] != original and self.bytes_of(name) != self.originals[original]
        return name in self.written_later if copy else self.in_place(name)

    @rule(name=NAMES)
    def write(self, name: str) -> None:
        """Write to a registered path, of a staged file or of one that stays after its upload."""
        if self.path(name).is_symlink():
            return
        if name in self.staged:
            self.contents[name] = self.new_content()
            self.path(name).write_bytes(self.contents[name] or b"")
        elif name in self.uploaded and self.in_place(name):
            self.written_later[name] = self.new_content()
            self.path(name).write_bytes(self.written_later[name])

    @rule(original=ORIGINALS)
    def change_original(self, original: str) -> None:
        self.originals[original] = self.new_content()
        self.original(original).write_bytes(self.originals[original])

    @rule(original=ORIGINALS)
    def remove_original(self, original: str) -> None:
        if self.originals.pop(original, None) is not None:
            self.original(original).unlink()

    @rule(name=NAMES)
    def forget(self, name: str) -> None:
        if name in self.staged:
            self.exe.forget(self.path(name))
            del self.staged[name], self.contents[name]

    @rule(clean=st.sampled_from([None, True, False]))
    def upload(self, clean: bool | None) -> None:
        sent = {name: content for name in self.staged if (content := self.bytes_of(name)) is not None}
        missing = self.staged.keys() - sent.keys()
        if missing and self.ended and not self.restored:
            with pytest.raises(MissingFiles):
                self.exe.upload_execution_outputs(clean_folder=clean)
        else:
            self.exe.upload_execution_outputs(clean_folder=clean)
        for name, content in (*sent.items(), *self.written_later.items()):
            self.recorded.add((name, hashlib.md5(content).hexdigest()))
            self.uploaded.add(name)
        for name in sent:
            del self.staged[name], self.contents[name]
        self.written_later.clear()
        self.check_recorded()

    @precondition(lambda self: not self.ended)
    @rule()
    def end(self) -> None:
        self.running.__exit__(None, None, None)
        self.ended = True

    @rule()
    def restore(self) -> None:
        """Restore in another client, as another process would."""
        self.ml = self.client()
        self.exe = self.ml.restore_execution(self.exe.execution_rid)
        self.restored = True
        self.check_recorded()

    # Invariants

    @invariant()
    def what_is_staged_is_known_and_there(self) -> None:
        if not hasattr(self, "exe"):
            return
        assert [asset.filename for asset in self.exe.staged_assets()] == list(self.staged)
        for name in self.staged:
            content = self.bytes_of(name)
            assert self.path(name).exists() is (content is not None)
            assert content is None or self.path(name).read_bytes() == content
        for name, content in self.written_later.items():
            assert self.path(name).read_bytes() == content
        for name, content in self.originals.items():
            assert self.original(name).read_bytes() == content

    def check_recorded(self) -> None:
        links = self.ml.select_rows("Model_Execution", {"Execution": self.exe.execution_rid})
        rows = {row["RID"]: (row["Filename"], row["MD5"]) for row in self.ml.select_rows("Model")}
        assert Counter(rows[link["Model"]] for link in links) == Counter(self.recorded)


@pytest.fixture(scope="module", autouse=True)
def template() -> Iterator[None]:
    """Create a catalog to copy; suppress the warnings about missing files, of which there are many."""
    logging.getLogger("deriva_ml_core").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        Staging.template = Path(folder) / "catalog"
        DerivaML(f"file:{Staging.template}").close()
        yield
    logging.getLogger("deriva_ml_core").setLevel(logging.NOTSET)


def test_copy_written_after_its_upload(exe: Execution, tmp_path: Path) -> None:
    """The copy is uploaded again like any staged file; another copy does not replace it silently."""
    original = tmp_path / "original"
    original.write_bytes(b"first")
    with exe:
        path = exe.asset_file_path("Model", original, copy_file=True)
        exe.upload_execution_outputs()
        path.write_bytes(b"second, longer")
        with pytest.raises(FileConflict, match="changed after its upload"):
            exe.asset_file_path("Model", original, copy_file=True)
        (again,) = exe.upload_execution_outputs()["Model"]
        assert again.md5 == hashlib.md5(b"second, longer").hexdigest()
        assert exe.asset_file_path("Model", original, copy_file=True).read_bytes() == b"first"


def test_pending_link_is_not_removed(exe: Execution, tmp_path: Path) -> None:
    """A link that is registered again after its upload stays until its original is back."""
    original = tmp_path / "original"
    original.write_bytes(b"first")
    with exe:
        exe.asset_file_path("Model", original)
        exe.upload_execution_outputs()
        exe.asset_file_path("Model", original)
        original.unlink()
    with pytest.raises(MissingFiles):
        exe.upload_execution_outputs()
    original.write_bytes(b"second")
    (asset,) = exe.upload_execution_outputs()["Model"]
    assert asset.md5 == hashlib.md5(b"second").hexdigest()


class TestStaging(Staging.TestCase):  # type: ignore[misc, name-defined]
    """A few hundred steps."""

    settings = settings(
        max_examples=60,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )


@pytest.mark.long
class TestStagingLong(Staging.TestCase):  # type: ignore[misc, name-defined]
    """Many thousand steps, different each time."""

    settings = settings(
        max_examples=int(os.environ.get("DERIVA_ML_EXAMPLES", "400")),
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
