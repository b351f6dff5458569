"""Registering files: ``asset_file_path`` and its four methods."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from deriva_ml_core.assets.staging import check_file_name
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import FileConflict, InvalidFileName, UnknownColumn, UnknownTable, UnknownTerm
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import Asset
from deriva_ml_core.schema import Column
from deriva_ml_core.training.checkpoint_download import fetch_checkpoint
from deriva_ml_core.training.resume import record_files_as_inputs
from deriva_ml_core.workflow import Workflow


def names(exe: Execution) -> list[str]:
    return [f"{asset.table}/{asset.filename}" for asset in exe.staged_assets()]


def test_new_file_gets_a_path_in_the_working_folder(exe: Execution) -> None:
    """Method 1: a bare name is a new file, and its folder exists."""
    path = exe.asset_file_path(asset_name="Model", file_name="model.pt")
    assert path.is_relative_to(exe.working_dir)
    assert path.name == "model.pt"
    path.write_bytes(b"weights")
    assert names(exe) == ["Model/model.pt"]


def test_same_name_gives_the_same_path(exe: Execution) -> None:
    """Registering a name or its path again returns the same path, also without the types."""
    path = exe.asset_file_path("Model", "model.pt", asset_types=["Model_File"])
    assert exe.asset_file_path("Model", "model.pt") == path
    assert exe.asset_file_path("Model", path) == path
    assert len(exe.staged_assets()) == 1


def test_bare_name_is_a_new_file(exe: Execution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a path with a folder names an existing file."""
    (tmp_path / "model.pt").write_bytes(b"other")
    monkeypatch.chdir(tmp_path)
    path = exe.asset_file_path("Model", "model.pt")
    assert not path.exists()
    assert exe.asset_file_path("Model", "./model.pt", rename_file="b.pt").read_bytes() == b"other"


def test_existing_file_is_linked(exe: Execution, tmp_path: Path) -> None:
    """Method 2 without copying: the original is the only copy until the upload."""
    original = tmp_path / "file.png"
    original.write_bytes(b"png")
    path = exe.asset_file_path("Image", str(original))
    assert path.is_symlink()
    assert path.read_bytes() == b"png"


def test_existing_file_is_copied(exe: Execution, tmp_path: Path) -> None:
    """Method 2 with copying: later changes of the original have no effect."""
    original = tmp_path / "file.png"
    original.write_bytes(b"png")
    path = exe.asset_file_path("Image", original, copy_file=True)
    original.unlink()
    assert path.read_bytes() == b"png"
    assert not path.is_symlink()


def test_file_is_renamed(exe: Execution, tmp_path: Path) -> None:
    """Method 3: the row has the new name."""
    original = tmp_path / "temp.png"
    original.write_bytes(b"png")
    exe.asset_file_path("Image", original, rename_file="processed_image.png")
    assert names(exe) == ["Image/processed_image.png"]


def test_asset_types(exe: Execution) -> None:
    """Method 4: types are terms of Asset_Type; the table's name is the default."""
    exe.asset_file_path("Image", "mask.png", asset_types=["Segmentation_Mask", "Derived"])
    exe.asset_file_path("Image", "one.png", asset_types="Derived")
    exe.asset_file_path("Image", "none.png")
    assert [asset.asset_types for asset in exe.staged_assets()] == [
        ("Segmentation_Mask", "Derived"),
        ("Derived",),
        ("Image",),
    ]


def test_metadata(ml: DerivaML, exe: Execution) -> None:
    """Keyword arguments are columns of the asset table."""
    ml.create_asset("Scan", columns=[Column("Angle", "float8")])
    exe.asset_file_path("Scan", "a.png", Angle=1.5, Description="from above")
    assert exe.staged_assets()[0].metadata == {"Angle": 1.5, "Description": "from above"}


def test_unknown_names_raise_at_once(exe: Execution) -> None:
    """An unknown table, type or column is refused before anything is staged; the error lists the known ones."""
    with pytest.raises(UnknownTable, match="Execution_Metadata"):
        exe.asset_file_path("Modle", "a.pt")
    with pytest.raises(UnknownTable, match="asset table"):
        exe.asset_file_path("Dataset", "a.pt")
    with pytest.raises(UnknownTerm, match="Segmentation_Mask"):
        exe.asset_file_path("Image", "a.png", asset_types=["Mask"])
    with pytest.raises(UnknownColumn, match="Description"):
        exe.asset_file_path("Image", "a.png", Colour="red")
    with pytest.raises(UnknownColumn, match="the upload fills it"):
        exe.asset_file_path("Image", "a.png", URL="x")
    assert exe.staged_assets() == []


@pytest.mark.parametrize("name", ["../a.pt", "a/../../b", "/no/such/file.pt", "", ".", "a/", "a\0b", "x" * 256])
def test_name_outside_the_folder_is_refused(
    exe: Execution, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file can only be staged below its table's folder."""
    monkeypatch.chdir(tmp_path)  # where no such file lies above
    with pytest.raises(InvalidFileName):
        exe.asset_file_path("Model", name)
    with pytest.raises(InvalidFileName):
        exe.asset_file_path("Model", "fine", rename_file=name or "..")


def test_folder_is_refused(exe: Execution, tmp_path: Path) -> None:
    """An existing path must be a file."""
    with pytest.raises(InvalidFileName, match="folder"):
        exe.asset_file_path("Model", tmp_path)


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """Let this process write no file of more than 16 MiB, so that an endless copy fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 2**20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.usefixtures("small_files_only")
def test_special_file_is_refused(exe: Execution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy: bool) -> None:
    """A fifo, a socket, a device, and a link to one cannot be registered, and are not read."""
    monkeypatch.chdir(tmp_path)  # since the path of a socket is short
    os.mkfifo("a fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("a socket")
        (tmp_path / "link").symlink_to("/dev/zero")
        for path, kind in (
            (tmp_path / "a fifo", "a fifo"),
            (tmp_path / "a socket", "a socket"),
            ("/dev/zero", "a device"),
            (tmp_path / "link", "a device"),
        ):
            with pytest.raises(InvalidFileName, match=rf"{path}' is {kind}.*Write its content to a file"):
                exe.asset_file_path("Model", path, copy_file=copy)
    assert exe.staged_assets() == []


def test_conflicting_originals_are_refused(exe: Execution, tmp_path: Path) -> None:
    """A second original under a name is refused, unless it is the same or has equal bytes."""
    for folder, content in (("a", b"one"), ("b", b"two"), ("c", b"one")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(content)
    path = exe.asset_file_path("Image", tmp_path / "a" / "x.png")
    assert exe.asset_file_path("Image", tmp_path / "a" / "x.png") == path
    assert exe.asset_file_path("Image", tmp_path / "c" / "x.png") == path
    with pytest.raises(FileConflict, match="rename_file"):
        exe.asset_file_path("Image", tmp_path / "b" / "x.png")
    exe.asset_file_path("Image", tmp_path / "b" / "x.png", rename_file="y.png")
    assert names(exe) == ["Image/x.png", "Image/y.png"]


def test_new_file_cannot_replace_a_link(exe: Execution, tmp_path: Path) -> None:
    """A new file cannot have the name of a staged link, as writing it would change the original."""
    original = tmp_path / "x.png"
    original.write_bytes(b"mine")
    exe.asset_file_path("Image", original)
    with pytest.raises(FileConflict, match="already staged as a link"):
        exe.asset_file_path("Image", "x.png")


def test_other_types_are_refused(exe: Execution) -> None:
    """The types of a staged file cannot be changed by registering it again."""
    exe.asset_file_path("Image", "x.png", asset_types=["Derived"])
    with pytest.raises(FileConflict, match="forget"):
        exe.asset_file_path("Image", "x.png", asset_types=["Segmentation_Mask"])


def test_file_and_folder_of_one_name_are_refused(exe: Execution) -> None:
    """``a`` and ``a/b`` cannot both be files."""
    exe.asset_file_path("Model", "a/b")
    with pytest.raises(FileConflict):
        exe.asset_file_path("Model", "a")
    exe.asset_file_path("Model", "c").write_bytes(b"")
    with pytest.raises(FileConflict):
        exe.asset_file_path("Model", "c/d")


def test_sub_folders(exe: Execution) -> None:
    """A new file's folders are part of its name."""
    path = exe.asset_file_path("Model", "fold-1/weights/model.pt")
    path.write_bytes(b"x")
    assert names(exe) == ["Model/fold-1/weights/model.pt"]


def test_forget(exe: Execution, tmp_path: Path) -> None:
    """forget() accepts the returned path or the original's; the original stays."""
    path = exe.asset_file_path("Model", "a.pt")
    original = tmp_path / "b.pt"
    original.write_bytes(b"b")
    exe.asset_file_path("Model", original)
    exe.forget(path)
    exe.forget(original)
    assert exe.staged_assets() == []
    assert original.read_bytes() == b"b"
    with pytest.raises(InvalidFileName, match="staged_assets"):
        exe.forget(path)
    assert exe.asset_file_path("Model", "a.pt") == path


_PART = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(parts=st.lists(_PART, min_size=1, max_size=3))
@example(["epoch=3-step=100.ckpt"])
@example(["model.weights.h5"])
@example([".hidden"])
@example(["no extension"])
@example(["naïve 模型 ☃.pt"])
@example(["x" * 255])
@example(["~"])
@example(["%2F..%2F"])
@example(["C:\\x"])
def test_any_valid_file_name(exe: Execution, parts: list[str]) -> None:
    """Every name that the file system allows is staged inside the folder and keeps its name."""
    assume(all(part not in (".", "..") and len(os.fsencode(part)) <= 255 for part in parts))
    name = "/".join(parts)
    assert check_file_name(name) == name
    path = exe.asset_file_path("Model", name)
    assert path.is_relative_to(exe.working_dir)
    if not path.exists():
        path.write_bytes(b"x")
    assert exe.staged_assets()[-1].filename == name
    exe.forget(path)
    path.unlink()


@given(name=st.text(max_size=60))
def test_checked_name_stays_inside(name: str) -> None:
    """No name that passes the check leads out of its folder."""
    try:
        checked = check_file_name(name)
    except InvalidFileName:
        return
    assert (Path("/srv/of/all") / checked).is_relative_to("/srv/of/all")
    assert os.path.normpath(os.path.join("/srv/of/all", checked)).startswith("/srv/of/all/")


def count_calls(act: Callable[[], object]) -> int:
    """Return the number of calls of Python functions during a call."""
    count = 0

    def profile(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("what", ["base_keys", "mark_immutable", "find_staged", "forget"])
def test_path_look_ups_are_linear(exe: Execution, what: str) -> None:
    """Looking twice as many paths up among twice as many files takes twice as many calls, not four times."""
    area = exe._runtime.staging
    calls = []
    for count in (100, 200):
        for number in range(count):
            path = area.stage("Model", f"{count}/{number}.bin")[0].path
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"x")
        paths = [asset.path for asset in area.list_staged()][-count:]
        look_up = getattr(area, what)
        calls.append(count_calls(lambda: look_up(paths) if what == "base_keys" else [look_up(path) for path in paths]))  # noqa: B023
    assert calls[1] < 2.5 * calls[0]


# Names whose bytes are not UTF-8

NOT_UTF8 = b"caf\xe9.bin"
"""The bytes of a name in Latin-1; Python spells them with a lone surrogate."""

NOT_UTF8_TEXT = "caf\\udce9.bin"
"""The same name as the catalog has it."""


def spell(name: bytes) -> str:
    return os.fsdecode(name)


def uploaded_names(assets: dict[str, tuple[Asset, ...]]) -> list[str]:
    return [asset.filename for of_table in assets.values() for asset in of_table]


def test_new_file_whose_name_is_not_utf8(ml: DerivaML, exe: Execution) -> None:
    """Its path has the same bytes, its row an escaped name, and it is found, uploaded and downloaded by them."""
    with exe:
        path = exe.asset_file_path("Model", spell(b"r\xfcn/" + NOT_UTF8))
        assert os.fsencode(path).endswith(b"/outputs/Model/r\xfcn/caf\xe9.bin")
        path.write_bytes(b"weights")
        assert exe.asset_file_path("Model", spell(b"r\xfcn/" + NOT_UTF8)) == path
        assert exe.asset_file_path("Model", path) == path
        assert names(exe) == ["Model/r\\udcfcn/caf\\udce9.bin"]
        exe.add_asset_types(path, "Model_File")
        (asset,) = exe.upload_execution_outputs()["Model"]
        assert (asset.filename, asset.length) == ("r\\udcfcn/caf\\udce9.bin", 7)
        path.write_bytes(b"new weights")
        assert uploaded_names(exe.upload_execution_outputs()) == ["r\\udcfcn/caf\\udce9.bin"]
    assert ml.lookup_asset(asset.rid).filename == "r\\udcfcn/caf\\udce9.bin"
    ml.verify_asset(asset)
    with ml.create_execution(ExecutionConfiguration(workflow=exe.workflow_rid)) as reader:
        found = reader.download_asset(asset.rid)
        assert found.parts[-2:] == ("r\\udcfcn", NOT_UTF8_TEXT)
        assert found.read_bytes() == b"weights"


@pytest.mark.parametrize("copy_file", [False, True])
@pytest.mark.parametrize("rename_file", [None, b"th\xe9.bin"])
def test_existing_file_whose_name_is_not_utf8(
    ml: DerivaML, exe: Execution, tmp_path: Path, copy_file: bool, rename_file: bytes | None
) -> None:
    """It is linked or copied under the same bytes, uploaded, and the original stays."""
    original = tmp_path / spell(NOT_UTF8)
    original.write_bytes(b"weights")
    new_name = None if rename_file is None else spell(rename_file)
    expected = ("caf\\udce9.bin", b"/caf\xe9.bin") if rename_file is None else ("th\\udce9.bin", b"/th\xe9.bin")
    with exe:
        path = exe.asset_file_path("Model", original, copy_file=copy_file, rename_file=new_name)
        assert os.fsencode(path).endswith(expected[1])
        assert (path.is_symlink(), path.read_bytes()) == (not copy_file, b"weights")
        assert exe.asset_file_path("Model", original, copy_file=copy_file, rename_file=new_name) == path
    assert uploaded_names(exe.upload_execution_outputs()) == [expected[0]]
    assert original.read_bytes() == b"weights"
    (asset,) = (asset for asset in exe.list_assets() if asset.table == "Model")
    ml.verify_asset(asset)


def test_input_whose_name_is_not_utf8(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """An uploaded file that stayed in its place is recorded as the input of a later run, also as a metadata file."""
    original = tmp_path / spell(NOT_UTF8)
    original.write_bytes(b"weights")
    with exe:
        exe.asset_file_path("Execution_Metadata", original)
    assert uploaded_names(exe.upload_execution_outputs()) == [NOT_UTF8_TEXT]
    with ml.create_execution(ExecutionConfiguration(workflow=exe.workflow_rid)) as later:
        inputs = record_files_as_inputs(later, exe.execution_rid, original)
    assert [asset.filename for asset in inputs] == [NOT_UTF8_TEXT]
    recorded = ml.lookup_execution(exe.execution_rid)
    assert fetch_checkpoint(recorded, tmp_path / "copy", spell(NOT_UTF8)).read_bytes() == b"weights"


KILLED_WITH_STAGED_FILES = """
import os, signal, sys
from deriva_ml_core import DerivaML, ExecutionConfiguration
exe = DerivaML().create_execution(ExecutionConfiguration(workflow=sys.argv[1]))
exe.__enter__()
exe.asset_file_path("Model", os.fsdecode(b"caf\\xe9.bin")).write_bytes(b"new")
exe.asset_file_path("Model", sys.argv[2])
print(exe.execution_rid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_names_that_are_not_utf8_after_a_crash(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """A new process finds the files of a killed one by the same bytes, and uploads them."""
    original = tmp_path / spell(b"th\xe9.bin")
    original.write_bytes(b"existing")
    command = [sys.executable, "-c", KILLED_WITH_STAGED_FILES, exe.workflow_rid, os.fspath(original)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    restored = ml.restore_execution(done.stdout.strip())
    new, existing = restored.staged_assets()
    assert os.fsencode(new.path).endswith(b"/outputs/Model/caf\xe9.bin")
    assert existing.original == original
    assert uploaded_names(restored.upload_execution_outputs()) == ["caf\\udce9.bin", "th\\udce9.bin"]
    assert restored.staged_assets() == []


def test_two_names_with_one_escaped_form(exe: Execution) -> None:
    """A name that spells out the escape is another file: the second of them is refused, not confused."""
    path = exe.asset_file_path("Model", spell(NOT_UTF8))
    with pytest.raises(FileConflict, match="Use another name"):
        exe.asset_file_path("Model", NOT_UTF8_TEXT)
    assert [asset.path for asset in exe.staged_assets()] == [path]


def test_longest_name_that_is_not_utf8(ml: DerivaML, exe: Execution) -> None:
    """A name of 255 bytes, whose escaped form is longer than file systems allow, is uploaded and downloaded."""
    with exe:
        exe.asset_file_path("Model", spell(b"\xe9" * 255)).write_bytes(b"weights")
    (asset,) = exe.upload_execution_outputs()["Model"]
    assert asset.filename == "\\udce9" * 255
    with ml.create_execution(ExecutionConfiguration(workflow=exe.workflow_rid)) as reader:
        assert reader.download_asset(asset.rid).read_bytes() == b"weights"


def test_name_that_no_file_can_have(exe: Execution) -> None:
    """A surrogate that stands for no byte cannot be in a name of a file."""
    with pytest.raises(InvalidFileName, match=r"'a\\ud83d' cannot name a file"):
        exe.asset_file_path("Model", "a\ud83d")


def test_journal_of_names_in_utf8_is_unchanged(exe: Execution) -> None:
    """Paths in UTF-8 are stored as they are, and only others are escaped."""
    exe.asset_file_path("Model", "caf\u00e9 \\udce9.bin")
    exe.asset_file_path("Model", spell(NOT_UTF8))
    lines = [line for line in (exe.working_dir / "journal.jsonl").read_bytes().splitlines() if b"outputs/Model" in line]
    paths = [line[line.index(b'"path":') :].partition(b",")[0] for line in lines]
    assert paths == [
        '"path":"outputs/Model/caf\u00e9 \\\\udce9.bin"'.encode(),
        b'"path":"outputs/Model/caf\\u0000e9.bin"',
    ]


def test_working_folder_whose_name_is_not_utf8(tmp_path: Path, workflow: Workflow) -> None:
    """A run in a catalog in a folder of such a name is recorded with its files and its end, and restored."""
    folder = tmp_path / spell(b"donn\xe9es")
    folder.mkdir()
    ml = DerivaML(f"file:{folder}")
    with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
        exe.asset_file_path("Model", spell(NOT_UTF8)).write_bytes(b"weights")
    assert uploaded_names(exe.upload_execution_outputs()) == [NOT_UTF8_TEXT]
    assert ml.lookup_execution(exe.execution_rid).status is Status.completed
    assert ml.restore_execution(exe.execution_rid).staged_assets() == []


RUN_OF_A_SCRIPT = """
from deriva_ml_core import DerivaML, ExecutionConfiguration
ml = DerivaML()
with ml.create_execution(ExecutionConfiguration(workflow=ml.create_workflow("Test", "Training"))) as exe:
    pass
print(exe.execution_rid)
"""


def test_script_and_git_names_that_are_not_utf8(ml: DerivaML, tmp_path: Path) -> None:
    """A run of a script with such a path, on such a branch, by such a user, is recorded with its end."""
    root = tmp_path / spell(b"d\xe9p\xf4t")
    root.mkdir()
    script = root / spell(b"entra\xeenement.py")
    script.write_text("print(1)\n")
    for arguments in (
        [b"init", b"-q", b"-b", b"ma\xeetre"],
        [b"config", b"user.name", b"Andr\xe9"],
        [b"config", b"user.email", b"a@example.org"],
        [b"add", b"."],
        [b"commit", b"-qm", b"first"],
    ):
        subprocess.run([b"git", *arguments], cwd=os.fsencode(root), check=True, capture_output=True)
    script.write_text(RUN_OF_A_SCRIPT)
    done = subprocess.run([sys.executable, script], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    recorded = ml.lookup_execution(done.stdout.strip())
    assert recorded.status is Status.completed
    environment = next(asset for asset in recorded.list_assets() if "Runtime_Env" in asset.asset_types)
    facts = json.loads(Path(ml.connection.store.source(environment.url).removeprefix("file://")).read_text())
    assert facts["source"]["path"].endswith("/d\\udce9p\\udcf4t/entra\\udceenement.py")
    assert facts["repository"]["branch"] == "ma\\udceetre"
