"""Permissions of objects, copies and folders: never more open than the original, the umask and a shared folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from deriva_ml_core._files.atomic import copy_atomic
from deriva_ml_core._files.permissions import create_folder, current_umask, is_shared_with_group
from deriva_ml_core.backends.embedded import FolderStore, open_catalog
from deriva_ml_core.backends.folder.store import copy_with_md5
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import StoredObject, UploadOptions
from deriva_ml_core.workflow import Workflow

OTHER_GROUP = 54321


@pytest.fixture(params=[0o022, 0o002, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Set the umask of this process."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Create a folder that a group shares."""
    folder = tmp_path / "lab"
    folder.mkdir()
    try:
        os.chown(folder, -1, OTHER_GROUP)
    except PermissionError:
        pytest.skip("only root can give a folder to a group that it is not in")
    folder.chmod(0o2770)
    return folder


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def put(store: FolderStore, file: Path, handover: TransferMode) -> StoredObject:
    return store.put("Image", "a.png", file, handover=handover, options=UploadOptions())


def object_of(store: FolderStore, stored: StoredObject) -> Path:
    return Path(store.source(stored.url).removeprefix("file://"))


def write(path: Path, mode: int) -> Path:
    path.write_bytes(b"some bytes")
    path.chmod(mode)
    return path


OBJECT_MODES = [
    # original, umask, object
    (0o644, 0o022, 0o444),
    (0o600, 0o022, 0o400),
    (0o640, 0o022, 0o440),
    (0o666, 0o077, 0o400),
    (0o664, 0o027, 0o440),
    (0o755, 0o022, 0o444),
    (0o200, 0o022, 0o400),
    (0o444, 0o777, 0o400),
]


@pytest.mark.parametrize("handover", list(TransferMode))
@pytest.mark.parametrize(("original", "umask", "expected"), OBJECT_MODES)
def test_object_mode(tmp_path: Path, handover: TransferMode, original: int, umask: int, expected: int) -> None:
    """An object is readable by those who may read the original and whom the umask allows, and by its owner."""
    if original == 0o200 and os.geteuid() != 0:
        pytest.skip("only root can read a file without the read bit")
    store = FolderStore(tmp_path)
    file = write(tmp_path / "file", original)
    before = os.umask(umask)
    try:
        stored = put(store, file, handover)
    finally:
        os.umask(before)
    assert mode_of(object_of(store, stored)) == expected


def test_copy_in_progress_is_private(tmp_path: Path) -> None:
    """A copy into the store is private until it is complete."""
    file = write(tmp_path / "file", 0o600)
    copy_with_md5(file, tmp_path / "draft")
    assert mode_of(tmp_path / "draft") == 0o600


def test_equal_bytes_of_a_public_file(tmp_path: Path) -> None:
    """An object takes the wider permissions if the same bytes are stored from a more open file."""
    store = FolderStore(tmp_path)
    private = put(store, write(tmp_path / "private", 0o600), TransferMode.copy)
    assert mode_of(object_of(store, private)) == 0o400
    put(store, write(tmp_path / "public", 0o644), TransferMode.copy)
    assert mode_of(object_of(store, private)) == 0o444
    put(store, write(tmp_path / "private", 0o600), TransferMode.move)
    assert mode_of(object_of(store, private)) == 0o444


def test_copies_keep_the_mode(tmp_path: Path) -> None:
    """A copy of a private file is private: a staged copy, and a file that was fetched from the store."""
    store = FolderStore(tmp_path)
    private = write(tmp_path / "private", 0o600)
    copy_atomic(private, tmp_path / "copy")
    assert mode_of(tmp_path / "copy") == 0o600
    stored = put(store, private, TransferMode.copy)
    store.get(stored.url, tmp_path / "fetched", length=stored.length, md5=stored.md5, options=UploadOptions())
    assert mode_of(tmp_path / "fetched") == 0o600
    public = write(tmp_path / "public", 0o644)
    copy_atomic(public, tmp_path / "public copy")
    assert mode_of(tmp_path / "public copy") == 0o644


def test_staged_copy_is_private(ml: DerivaML, workflow: Workflow, tmp_path: Path) -> None:
    """A private file that is copied into the working folder is stored as a private object."""
    private = write(tmp_path / "private.txt", 0o600)
    with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
        staged = exe.asset_file_path("Execution_Asset", private, copy_file=True)
        assert mode_of(Path(staged)) == 0o600
    (asset,) = exe.upload_execution_outputs()["Execution_Asset"]
    assert asset.md5
    assert mode_of(ml.connection.folder / "objects" / asset.md5[:2] / asset.md5) == 0o400


def test_umask_is_read(umask: int) -> None:
    """The umask is returned and not changed."""
    assert current_umask() == umask
    assert current_umask() == umask


def test_new_catalog_folder_is_private(tmp_path: Path, umask: int) -> None:
    """The folder of a new catalog and the folders that are created above it are 0700, whatever the umask."""
    open_catalog(tmp_path / "home" / "local").close()
    assert mode_of(tmp_path / "home" / "local") == 0o700
    assert mode_of(tmp_path / "home") == 0o700


def test_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    """A folder that existed before its catalog keeps its mode."""
    (tmp_path / "local").mkdir()
    (tmp_path / "local").chmod(0o755)
    open_catalog(tmp_path / "local").close()
    assert mode_of(tmp_path / "local") == 0o755


def test_catalog_in_a_shared_folder(shared: Path, workflow: Workflow, umask: int) -> None:
    """A catalog in a group's folder takes its group and mode: its database, objects and working folders."""
    with DerivaML(f"file:{shared / 'catalog'}") as ml:
        with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
            exe.asset_file_path("Model", "m.pt").write_bytes(b"weights")
        exe.upload_execution_outputs()
    catalog = shared / "catalog"
    folders = [catalog, catalog / "objects", *(catalog / "objects").iterdir(), catalog / "executions"]
    folders.append(exe.working_dir)
    assert {(path.stat().st_gid, mode_of(path)) for path in folders} == {(OTHER_GROUP, 0o2770)}
    assert (mode_of(catalog / "catalog.sqlite"), (catalog / "catalog.sqlite").stat().st_gid) == (0o660, OTHER_GROUP)
    objects = [path for path in (catalog / "objects").rglob("*") if path.is_file()]
    assert objects
    assert {path.stat().st_gid for path in objects} == {OTHER_GROUP}
    assert {mode_of(path) for path in objects} == {0o444 & ~umask}


def test_shared_folder_without_setgid(shared: Path) -> None:
    """A folder below a group's folder takes the group also without the set-group-ID bit."""
    shared.chmod(0o770)
    open_catalog(shared / "catalog").close()
    assert (mode_of(shared / "catalog"), (shared / "catalog").stat().st_gid) == (0o770, OTHER_GROUP)
    assert (shared / "catalog" / "catalog.sqlite").stat().st_gid == OTHER_GROUP


@pytest.mark.parametrize(
    ("mode", "is_shared"), [(0o2770, True), (0o2775, True), (0o770, True), (0o755, False), (0o1777, False)]
)
def test_shared_modes(shared: Path, mode: int, is_shared: bool) -> None:
    """A folder is shared if its group may write and not everybody may."""
    shared.chmod(mode)
    assert is_shared_with_group(shared) is is_shared


def test_private_group_of_the_user(tmp_path: Path) -> None:
    """A folder that is writable for the user's own private group is not shared."""
    import grp
    import pwd

    if grp.getgrgid(os.getegid()).gr_name != pwd.getpwuid(os.geteuid()).pw_name:
        pytest.skip("this user has no private group")
    tmp_path.chmod(0o775)
    assert not is_shared_with_group(tmp_path)


def test_create_folder_below_an_open_catalog(tmp_path: Path) -> None:
    """A folder inside a catalog that others may read has the usual mode; missing folders above it are private."""
    catalog = tmp_path / "open"
    catalog.mkdir()
    catalog.chmod(0o755)
    create_folder(catalog / "executions" / "1-A", root=catalog)
    assert mode_of(catalog / "executions") == mode_of(catalog / "executions" / "1-A") == 0o777 & ~current_umask()
    create_folder(tmp_path / "new" / "host" / "executions" / "1-A", root=tmp_path / "new" / "host")
    assert mode_of(tmp_path / "new") == mode_of(tmp_path / "new" / "host") == 0o700
