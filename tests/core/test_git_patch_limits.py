"""What the patch of uncommitted changes leaves out: files that git cannot take, large files, and our own folders."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from embedded_samples import run_in_child, unprivileged_user, world_writable_folder
from repositories import Repository, make_repository

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import DerivaMLWarning, NotReproducible
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.git import repository_state, uncommitted_patch
from deriva_ml_core.workflow import Workflow

MEGABYTE = 2**20


def header(patch: bytes) -> list[str]:
    """Return the notes at the head of a patch, without the first line."""
    return patch.partition(b"\n\n")[0].decode().splitlines()[1:]


def applied(repository: Repository, patch: bytes, folder: Path) -> Repository:
    """Return a clone of HEAD with the patch applied by git."""
    subprocess.run(["git", "clone", "-q", str(repository.root), str(folder)], check=True)
    clone = Repository(folder)
    clone.git("apply", "--whitespace=nowarn", "-", stdin=patch)
    return clone


def noise(size: int, seed: int = 0) -> bytes:
    """Return bytes that cannot be compressed."""
    return b"\0" + random.Random(seed).randbytes(size - 1)


def require_filter(repository: Repository, pattern: str, command: str) -> None:
    """Make git convert files by a command without which it refuses them, as git-lfs does."""
    repository.write(".gitattributes", f"{pattern} filter=large\n")
    repository.git("config", "filter.large.clean", command)
    repository.git("config", "filter.large.required", "true")


def measure(root: Path) -> dict[str, int]:
    """Make the patch of a repository in a new process.

    Returns:
        Bytes that this process and git read and wrote, the growth of the process in bytes, and the size of the patch.
    """
    code = (
        "import json, resource, sys, warnings; from pathlib import Path\n"
        "from deriva_ml_core.git import uncommitted_patch\n"
        "import git, nbformat, nbstripout\n"
        "def read():\n"
        "    lines = Path('/proc/self/io').read_text().splitlines()\n"
        "    return {name: int(value) for name, value in (line.split(': ') for line in lines)}\n"
        "def peak():\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "warnings.simplefilter('ignore')\n"
        "before, start = read(), peak()\n"
        "patch = uncommitted_patch(Path(sys.argv[1]), {})\n"
        "after = read()\n"
        "print(json.dumps({'read': after['rchar'] - before['rchar'], 'written': after['wchar'] - before['wchar'],\n"
        "    'growth': peak() - start, 'patch': len(patch)}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


needs_process_counters = pytest.mark.skipif(
    not Path("/proc/self/io").is_file(), reason="the kernel does not count the bytes of a process"
)


# files that git cannot take


def test_file_whose_filter_is_not_installed(repository: Repository, tmp_path: Path) -> None:
    """A file whose required filter is missing is named with git's message; all others are kept, and HEAD is known."""
    for name in ("a.py", "b.dat", "z.py"):
        repository.write(name, "1\n")
    head = repository.commit()
    require_filter(repository, "*.dat", "no-such-program")
    for name in ("a.py", "b.dat", "z.py"):
        repository.write(name, "2\n")
    repository.write("new.py", "3\n")
    with pytest.warns(DerivaMLWarning, match=r"b\.dat with the execution: .*filter 'large' failed\. Commit them"):
        patch = uncommitted_patch(repository.root, {})
    assert header(patch) == ["""# left out, as git cannot take it (b.dat: clean filter 'large' failed): "b.dat\""""]
    repository.git("config", "--unset", "filter.large.required")
    clone = applied(repository, patch, tmp_path / "clone")
    contents = {name: (clone.root / name).read_text() for name in ("a.py", "b.dat", "z.py", "new.py")}
    assert contents == {"a.py": "2\n", "b.dat": "1\n", "z.py": "2\n", "new.py": "3\n"}
    repository.git("config", "filter.large.required", "true")
    state = repository_state(repository.root)
    assert state
    assert (state.head, state.dirty) == (head, True)
    with pytest.raises(NotReproducible, match=r"b\.dat"):
        uncommitted_patch(repository.root, {"DERIVA_ML_REQUIRE_CLEAN": "1"})


def test_many_files_whose_filter_is_not_installed(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With hundreds of such files, git is started a limited number of times, and each file is named or kept."""
    for number in range(600):
        repository.write(f"data/{number:03}.dat", "1\n")
    repository.write("z.py", "1\n")
    repository.commit()
    require_filter(repository, "*.dat", "no-such-program")
    for number in range(600):
        repository.write(f"data/{number:03}.dat", "2\n")
    repository.write("z.py", "2\n")
    monkeypatch.setenv("GIT_TRACE2_EVENT", str(tmp_path / "trace"))
    with pytest.warns(DerivaMLWarning, match=r"data/000\.dat and of 599 other files with the execution"):
        patch = uncommitted_patch(repository.root, {})
    starts = [line for line in (tmp_path / "trace").read_text().splitlines() if '"event":"start"' in line]
    assert len(starts) < 250
    assert b"+++ b/z.py\n@@ -1 +1 @@\n-1\n+2\n" in patch
    assert sum("git cannot take it" in note for note in header(patch)) == 600


def test_staged_version_of_a_file_that_git_cannot_take(repository: Repository) -> None:
    """A file that is left out is left out completely, although an earlier version of it is staged."""
    repository.write("b.dat", "1\n")
    repository.commit()
    repository.write("b.dat", "staged\n")
    repository.write("new.dat", "staged\n")
    repository.git("add", ".")
    require_filter(repository, "*.dat", "no-such-program")
    repository.write("b.dat", "later\n")
    repository.write("new.dat", "later\n")
    with pytest.warns(DerivaMLWarning, match=r"b\.dat and of 1 other file"):
        patch = uncommitted_patch(repository.root, {})
    assert b"staged" not in patch
    assert b"diff --git a/.gitattributes" in patch
    assert len(header(patch)) == 2


def test_unreadable_file() -> None:
    """A tracked file and a tracked notebook that the user may not read are named; the others are kept."""

    def check() -> None:
        with pytest.warns(DerivaMLWarning, match=r"secret\.ipynb and of 1 other file.*Permission denied"):
            patch = uncommitted_patch(repository.root, {})
        assert [note.rpartition(": ")[2] for note in header(patch)] == ['"secret.ipynb"', '"secret.py"']
        assert b"+++ b/a.py\n@@ -1 +1 @@\n-1\n+2\n" in patch

    with world_writable_folder() as folder, pytest.MonkeyPatch.context() as patcher:
        settings = {"GLOBAL": "/dev/null", "NOSYSTEM": "1", "COUNT": "2"}
        values = {"KEY_0": "safe.directory", "VALUE_0": "*", "KEY_1": "user.email", "VALUE_1": "a@b.c"}
        for name, value in (settings | values).items():
            patcher.setenv(f"GIT_CONFIG_{name}", value)
        patcher.setenv("GIT_AUTHOR_NAME", "Test")
        patcher.setenv("GIT_COMMITTER_NAME", "Test")
        repository = make_repository(folder / "repo")
        for name in ("a.py", "secret.py", "secret.ipynb"):
            repository.write(name, "1\n")
        repository.commit()
        for name in ("a.py", "secret.py", "secret.ipynb"):
            repository.write(name, "2\n")
        for name in ("secret.py", "secret.ipynb"):
            (repository.root / name).chmod(0)
        assert run_in_child(check, user=unprivileged_user()) == ""


def test_special_file_in_the_place_of_a_tracked_one(repository: Repository) -> None:
    """A named pipe in the place of a tracked file is named, and never opened."""
    repository.write("a.py", "1\n")
    repository.write("b.py", "1\n")
    repository.commit()
    repository.write("a.py", "2\n")
    (repository.root / "b.py").unlink()
    os.mkfifo(repository.root / "b.py")
    with pytest.warns(DerivaMLWarning, match=r"b\.py with the execution: Unable to process path"):
        patch = uncommitted_patch(repository.root, {})
    assert b"diff --git a/a.py b/a.py" in patch


def test_missing_object(repository: Repository, tmp_path: Path) -> None:
    """A file whose committed content is missing, as in a partial clone, is named; all others are kept."""
    lost = repository.write("lost.py", "lost\n")
    repository.write("a.py", "1\n")
    repository.commit()
    blob = repository.hash(lost)
    (repository.root / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    repository.write("lost.py", "2\n")
    repository.write("a.py", "2\n")
    with pytest.warns(DerivaMLWarning, match=rf"lost\.py with the execution: unable to read {blob}"):
        patch = uncommitted_patch(repository.root, {})
    assert header(patch) == [f'# left out, as git cannot take it (unable to read {blob}): "lost.py"']
    assert b"+++ b/a.py\n@@ -1 +1 @@\n-1\n+2\n" in patch


def test_damaged_submodule(repository: Repository, tmp_path: Path) -> None:
    """A submodule without its repository does not prevent the patch, and HEAD is known."""
    inner = make_repository(tmp_path / "inner")
    inner.write("a.py", "1")
    inner.commit()
    repository.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner.root), "lib")
    repository.write("a.py", "1\n")
    head = repository.commit()
    (repository.root / ".git" / "modules" / "lib").rename(tmp_path / "gone")
    repository.write("a.py", "2\n")
    assert b"+++ b/a.py\n@@ -1 +1 @@\n-1\n+2\n" in uncommitted_patch(repository.root, {})
    state = repository_state(repository.root)
    assert state
    assert (state.head, state.dirty) == (head, True)


def test_file_that_becomes_a_link(repository: Repository, tmp_path: Path) -> None:
    """A file that becomes a link, and a link that becomes a file, are rebuilt."""
    repository.write("a.py", "1\n")
    repository.write("file.py", "1\n")
    (repository.root / "link.py").symlink_to("a.py")
    repository.commit()
    (repository.root / "file.py").unlink()
    (repository.root / "file.py").symlink_to("a.py")
    (repository.root / "link.py").unlink()
    repository.write("link.py", "2\n")
    clone = applied(repository, uncommitted_patch(repository.root, {}), tmp_path / "clone")
    assert (clone.root / "file.py").readlink() == Path("a.py")
    assert not (clone.root / "link.py").is_symlink()
    assert (clone.root / "link.py").read_text() == "2\n"


# large files


def test_large_binary_changes(repository: Repository, tmp_path: Path) -> None:
    """Tracked binary changes of over 10 MiB in all are recorded by name and hash, the smallest are kept."""
    for name, size in (("small.bin", 1), ("large.bin", 6), ("removed.bin", 11)):
        repository.write(name, noise(size * MEGABYTE))
    repository.write("a.py", "1\n")
    repository.commit()
    small, large = noise(MEGABYTE, seed=1), noise(10 * MEGABYTE, seed=2)
    repository.write("small.bin", small)
    file = repository.write("large.bin", large)
    (repository.root / "removed.bin").unlink()
    repository.write("a.py", "2\n")
    with pytest.warns(
        DerivaMLWarning, match=r"large\.bin and of 1 other file are too large .*10\.5 MB, blob"
    ) as caught:
        patch = uncommitted_patch(repository.root, {})
    assert len(caught) == 1
    assert header(patch) == [
        f'# left out (binary, 10.5 MB, blob {repository.hash(file)}): "large.bin"',
        '# left out (binary, 11.5 MB, removed): "removed.bin"',
    ]
    clone = applied(repository, patch, tmp_path / "clone")
    assert (clone.root / "small.bin").read_bytes() == small
    assert (clone.root / "a.py").read_text() == "2\n"
    assert (clone.root / "removed.bin").is_file()
    with pytest.raises(NotReproducible, match=r"large\.bin"):
        uncommitted_patch(repository.root, {"DERIVA_ML_REQUIRE_CLEAN": "1"})


def test_large_text_changes(repository: Repository, tmp_path: Path) -> None:
    """A small change of a large text is kept; large changes of texts are recorded by name and hash."""
    line = "0.123456789,0.987654321\n"
    count = 12 * MEGABYTE // len(line)
    repository.write("edited.csv", line * count)
    repository.write("rewritten.csv", line * count)
    repository.commit()
    repository.write("edited.csv", line * count + "1,2\n")
    file = repository.write("rewritten.csv", "1,2\n" * count)
    with pytest.warns(DerivaMLWarning, match=r"rewritten\.csv are too large"):
        patch = uncommitted_patch(repository.root, {})
    assert header(patch) == [f'# left out (a change of 15.7 MB, blob {repository.hash(file)}): "rewritten.csv"']
    assert (applied(repository, patch, tmp_path / "clone").root / "edited.csv").read_text().endswith("\n1,2\n")


def test_huge_files_are_not_compared(repository: Repository) -> None:
    """A tracked file that git would need much memory to compare is recorded by name and hash, in a conflict too."""
    repository.write("a.py", "1\n")
    repository.write("huge.csv", "1\n" * MEGABYTE)
    repository.commit()
    repository.git("checkout", "-q", "-b", "side")
    repository.write("huge.csv", "2\n" * MEGABYTE)
    repository.commit()
    repository.git("checkout", "-q", "main")
    repository.write("huge.csv", "3\n" * MEGABYTE)
    repository.commit()
    subprocess.run(["git", "merge", "-q", "side"], cwd=repository.root, capture_output=True)
    file = repository.write("huge.csv", "4\n" * (17 * MEGABYTE))
    repository.write("a.py", "2\n")
    with pytest.warns(DerivaMLWarning, match=r"huge\.csv are too large"):
        patch = uncommitted_patch(repository.root, {})
    assert header(patch) == [f'# left out (35.7 MB, blob {repository.hash(file)}): "huge.csv"']
    assert patch.count(b"diff --git") == 1


def test_large_file_that_a_filter_stores_elsewhere(repository: Repository) -> None:
    """The change of a large file that a filter stores elsewhere, as git-lfs does, is that of its small pointer."""
    require_filter(repository, "*.bin", "wc -c")
    file = repository.write("w.bin", "x")
    repository.commit()
    with file.open("r+b") as stream:
        stream.truncate(40 * MEGABYTE)
    assert b"\n-1\n+41943040\n" in uncommitted_patch(repository.root, {})


@needs_process_counters
def test_cost_of_a_large_binary_change(repository: Repository) -> None:
    """The bytes that are written for a change, and the growth of the process, do not depend on a binary file's size."""
    repository.write("w.bin", noise(MEGABYTE))
    repository.commit()
    repository.write("w.bin", noise(40 * MEGABYTE, seed=1))
    cost = measure(repository.root)
    assert cost["patch"] < 500
    assert cost["written"] < MEGABYTE
    assert cost["growth"] < 16 * MEGABYTE


@needs_process_counters
def test_cost_of_untracked_data(repository: Repository) -> None:
    """Untracked files beside the script are not read beyond what the patch holds: 100 MB cost 12 MB of text."""
    repository.write("a.py", "1\n")
    repository.commit()
    repository.write("a.py", "2\n")
    line = "x" * 1023 + "\n"
    for number in range(96):
        repository.write(f"data/{number}.txt", line * 1024)
    with repository.write("data/all.bin", "").open("r+b") as stream:
        stream.truncate(802_000_000)
    with repository.write("huge.ipynb", "").open("r+b") as stream:
        stream.truncate(200_000_000)
    cost = measure(repository.root)
    assert 10 * MEGABYTE < cost["patch"] < 11 * MEGABYTE
    assert cost["read"] < 60 * MEGABYTE
    assert cost["growth"] < 200 * MEGABYTE


def test_code_is_kept_beside_many_data_files(repository: Repository) -> None:
    """Small untracked files come first, whatever their names."""
    repository.write("train.py", "1\n")
    line = "x" * 1023 + "\n"
    for number in range(11):
        repository.write(f"data/{number:02}.txt", line * 1024)
    patch = uncommitted_patch(repository.root, {})
    assert b"diff --git a/train.py b/train.py" in patch
    assert header(patch) == [
        '# untracked and left out (untracked files together over 10.5 MB): "data/09.txt"',
        '# untracked and left out (untracked files together over 10.5 MB): "data/10.txt"',
    ]


# the catalog in the repository


def record_run(ml: DerivaML, script: Path) -> tuple[bytes, dict[str, object]]:
    """Record a run with an output, and return its patch (empty if there is none) and the state of the repository."""
    workflow = Workflow(name="Test", workflow_type="Training", script=script)
    with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
        exe.asset_file_path("Execution_Asset", "result.txt").write_text("1")
    exe.upload_execution_outputs()
    records = exe.working_dir / "records"
    (snapshot,) = records.glob("environment_snapshot_*.json")
    patch = records / "uncommitted.patch"
    return patch.read_bytes() if patch.exists() else b"", json.loads(snapshot.read_text())["repository"]


@pytest.mark.parametrize("address", ["file:{root}/catalog", "file:{root}/results/catalog", None])
def test_new_catalog_in_the_repository(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    """Git ignores a new catalog in a repository, and runs leave the repository clean."""
    script = repository.write("train.py", "1\n")
    repository.commit()
    monkeypatch.setenv("DERIVA_ML_HOME", str(repository.root / ".deriva"))
    ml = DerivaML(address and address.format(root=repository.root))
    for _ in range(2):
        patch, state = record_run(ml, script)
        assert patch == b""
        assert state["dirty"] is False
    assert repository.git("status", "--porcelain") == ""
    if address and "results" in address:
        repository.write("results/notes.txt", "x")  # the folder above the catalog is the user's
        assert repository.git("status", "--porcelain") == "?? results/"


def test_catalog_in_a_folder_of_the_user(repository: Repository) -> None:
    """In a folder that existed, only what belongs to the catalog is left out, also if it was committed by mistake."""
    repository.write("data/lists.txt", "1\n")
    script = repository.write("train.py", "1\n")
    repository.commit()
    ml = DerivaML(f"file:{repository.root}/data")
    assert not (repository.root / "data" / ".gitignore").exists()
    record_run(ml, script)
    patch, state = record_run(ml, script)
    assert (patch, state["dirty"]) == (b"", False)
    repository.git("add", "--force", "data")
    repository.git("commit", "-q", "-m", "catalog")
    repository.write("data/lists.txt", "2\n")
    repository.write("data/new.txt", "2\n")
    patch, state = record_run(ml, script)
    assert state["dirty"] is True
    assert sorted(line for line in patch.splitlines() if line.startswith((b"diff", b"# ")))[1:] == [
        b"diff --git a/data/lists.txt b/data/lists.txt",
        b"diff --git a/data/new.txt b/data/new.txt",
    ]


def test_catalog_in_the_root_of_the_repository(repository: Repository) -> None:
    """If the repository itself is the catalog's folder, its code is still recorded."""
    script = repository.write("train.py", "1\n")
    repository.write("other.py", "1\n")
    repository.commit()
    ml = DerivaML(f"file:{repository.root}")
    record_run(ml, script)
    repository.write("other.py", "2\n")
    patch, _ = record_run(ml, script)
    assert patch.count(b"diff --git") == 1
    assert b"+++ b/other.py\n" in patch


def test_working_folders_in_the_repository(repository: Repository) -> None:
    """Working folders in a folder of the repository are no changes of it."""
    script = repository.write("train.py", "1\n")
    repository.commit()
    ml = DerivaML(working_dir=repository.root / "work")
    patch, state = record_run(ml, script)
    assert (patch, state["dirty"]) == (b"", False)
    assert repository.git("status", "--porcelain") == ""


def test_all_entries_of_a_catalog_are_left_out(tmp_path: Path, workflow: Workflow) -> None:
    """A catalog's folder has no entries but those that are left out of the patch."""
    folder = tmp_path / "catalog"
    folder.mkdir()
    ml = DerivaML(f"file:{folder}")
    dataset = ml.create_dataset("A dataset", "Training")
    dataset.download_dataset_bag()
    other = DerivaML(f"file:{tmp_path / 'other'}")
    with other.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
        exe.asset_file_path("Image", "a.png").write_bytes(b"1")
    exe.upload_execution_outputs()
    other.push(exe.execution_rid, to=ml)
    with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
        exe.asset_file_path("Image", "a.png").write_bytes(b"1")
    exe.upload_execution_outputs()
    entries = {path.name for path in folder.iterdir()}
    assert entries >= {"catalog.sqlite", "cache", "executions", "objects", "pushed"}
    assert entries - {path.name for path in ml.connection.own_paths} == set()
