"""The patch of uncommitted changes: it rebuilds the work tree and holds no secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from repositories import Repository, make_repository

from deriva_ml_core.errors import DerivaMLWarning, NotReproducible
from deriva_ml_core.git import blob_hash, uncommitted_patch
from deriva_ml_core.git.patch import MAX_FILE_SIZE

SECRET = "ghp_" + "a1B2" * 9


def rebuild(repository: Repository, patch: bytes, folder: Path) -> dict[str, bytes]:
    """Return the files of HEAD with the patch applied by git, by name."""
    target = make_repository(folder) if not has_commits(repository) else clone(repository, folder)
    target.git("apply", "--whitespace=nowarn", "-", stdin=patch)
    return files(target)


def clone(repository: Repository, folder: Path) -> Repository:
    """Clone a repository at HEAD."""
    subprocess.run(["git", "clone", "-q", str(repository.root), str(folder)], check=True)
    return Repository(folder)


def has_commits(repository: Repository) -> bool:
    """Whether the repository has a commit."""
    return subprocess.run(["git", "rev-parse", "-q", "--verify", "HEAD"], cwd=repository.root).returncode == 0


def files(repository: Repository) -> dict[str, bytes]:
    """Return all files of a work tree by name; a link as its target."""
    rebuilt = (path for path in repository.root.rglob("*") if ".git" not in path.relative_to(repository.root).parts)
    return {
        str(path.relative_to(repository.root)): b"-> " + os.fsencode(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        for path in rebuilt
        if path.is_symlink() or path.is_file()
    }


def read_all_files(root: Path) -> dict[str, bytes]:
    """Return the bytes of all files below a folder, including git's own."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def notebook(source: str, output: str = "", identity: str = "a") -> str:
    """Return a notebook with one cell."""
    outputs = [{"output_type": "stream", "name": "stdout", "text": [output]}] if output else []
    cell = {
        "cell_type": "code",
        "id": identity,
        "metadata": {},
        "execution_count": len(output) or None,
        "outputs": outputs,
        "source": [source],
    }
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def test_clean_work_tree(repository: Repository) -> None:
    """A clean work tree gives an empty patch, even with ignored files."""
    repository.write(".gitignore", "*.log")
    repository.commit()
    repository.write("run.log", "x")
    assert uncommitted_patch(repository.root, {}) == b""


def test_change_within_the_timestamp_of_the_commit(repository: Repository, tmp_path: Path) -> None:
    """A change of equal length in the same clock tick as the commit is detected."""
    repository.git("config", "core.trustctime", "false")
    tick = (1_600_000_000, 1_600_000_000)
    os.utime(repository.write("near.py", "x = 1\n"), tick)
    repository.commit()
    os.utime(repository.root / ".git" / "index", tick)
    os.utime(repository.write("near.py", "x = 2\n"), tick)
    patch = uncommitted_patch(repository.root, {})
    assert rebuild(repository, patch, tmp_path / "clone")["near.py"] == b"x = 2\n"


def test_every_kind_of_change(repository: Repository, tmp_path: Path) -> None:
    """Changed, added, removed, renamed, binary, linked, executable, staged and untracked files are rebuild."""
    repository.write("changed.py", "1\n2\n3\n")
    repository.write("removed.py", "x\n")
    repository.write("old name.py", "same\n" * 20)
    repository.write("binary.bin", bytes(range(256)))
    repository.write("mode.sh", "echo\n")
    repository.write("no end.txt", "a\nb")
    repository.write("now a folder", "x")
    repository.write("crlf.txt", "a\r\nb\r\n")
    repository.commit()
    repository.write("changed.py", "1\nzwei\n3\n")
    (repository.root / "removed.py").unlink()
    repository.git("mv", "old name.py", "new näme.py")
    repository.write("binary.bin", bytes(reversed(range(256))))
    (repository.root / "mode.sh").chmod(0o755)
    repository.write("no end.txt", "a\nb\nc")
    (repository.root / "now a folder").unlink()
    repository.write("now a folder/inner.py", "x\n")
    repository.write("crlf.txt", "a\r\nB\r\n")
    repository.write("staged.py", "staged\n")
    repository.git("add", "staged.py")
    repository.write("staged.py", "staged and changed\n")
    repository.git("add", "-N", repository.write("intended.py", "x\n").name)
    repository.write("deep/er/untracked é.py", "new\n")
    repository.write('quo"te\n.py', "new\n")
    repository.write("empty", "")
    (repository.root / "link").symlink_to("changed.py")
    patch = uncommitted_patch(repository.root, {})
    assert rebuild(repository, patch, tmp_path / "clone") == files(repository)
    assert os.access(tmp_path / "clone" / "mode.sh", os.X_OK)


def test_before_the_first_commit(repository: Repository, tmp_path: Path) -> None:
    """Without a commit, the patch rebuilds the files in an empty folder."""
    repository.write("a.py", "1\n")
    repository.git("add", "a.py")
    repository.write("b.py", "2\n")
    patch = uncommitted_patch(repository.root, {})
    assert b"on no commit" in patch
    assert rebuild(repository, patch, tmp_path / "new") == {"a.py": b"1\n", "b.py": b"2\n"}


def test_header_names_the_commit(repository: Repository) -> None:
    """The header names the commit that the patch applies to."""
    repository.write("a.py", "1")
    head = repository.commit()
    repository.write("a.py", "2")
    assert uncommitted_patch(repository.root, {}).startswith(f"# Uncommitted changes of repo on {head};".encode())


def test_git_settings_have_no_effect(
    repository: Repository, git_settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patch applies whatever the user's git settings."""
    repository.write("é.py", "a\n" * 20)
    repository.write("x.dat", "a\n")
    repository.write(".gitattributes", "*.dat diff=upper\n")
    repository.commit()
    git_settings.write_text(
        git_settings.read_text()
        + "[color]\n\tui = always\n[core]\n\tquotepath = true\n\tsplitIndex = true\n\tfsmonitor = true\n"
        "\tsafecrlf = true\n\tautocrlf = input\n"
        "[diff]\n\texternal = false\n\tnoprefix = true\n\tmnemonicPrefix = true\n\tcontext = 0\n\trenames = copies\n"
        "\tsuppressBlankEmpty = true\n\tsubmodule = log\n\twordRegex = .\n\tcolorMoved = zebra\n\trelative = true\n"
        '[diff "upper"]\n\ttextconv = tr a-z A-Z <\n\tcommand = false\n'
        "[status]\n\tshort = true\n\tshowUntrackedFiles = no\n"
    )
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "none"))
    repository.write("é.py", "a\n" * 10 + "b\n" + "a\n" * 9)
    repository.write("x.dat", "b\n")
    repository.write("new.py", "c\n")
    patch = uncommitted_patch(repository.root, {})
    monkeypatch.delenv("GIT_EXTERNAL_DIFF")
    monkeypatch.delenv("GIT_INDEX_FILE")
    git_settings.write_text("")
    assert rebuild(repository, patch, tmp_path / "clone") == files(repository)


def test_safecrlf_is_ignored(repository: Repository, git_settings: Path) -> None:
    """The patch is created even if git is set to refuse irreversible line endings."""
    git_settings.write_text(git_settings.read_text() + "[core]\n\tsafecrlf = true\n\tautocrlf = input\n")
    repository.write("a.txt", "one\r\ntwo\r\n")
    assert b"+one\n+two\n" in uncommitted_patch(repository.root, {})


def test_limits_of_untracked_files(repository: Repository, tmp_path: Path) -> None:
    """The header names large and binary untracked files; text of up to 1 MiB each and 10 MiB in total is included."""
    repository.write("a.py", "1")
    repository.commit()
    line = "x" * 1023 + "\n"
    for number in range(12):
        repository.write(f"part {number:02}.txt", line * (MAX_FILE_SIZE // 1024))
    repository.write("large.txt", line * (MAX_FILE_SIZE // 1024) + "x")
    repository.write("image.png", b"\x89PNG\0\0")
    small = repository.write("z.py", "")
    patch = uncommitted_patch(repository.root, {})
    heading = patch.partition(b"\n\n")[0].decode().splitlines()[1:]
    assert heading == [
        '# untracked and left out (binary, 6 B): "image.png"',
        '# untracked and left out (1.0 MB): "large.txt"',
        '# untracked and left out (untracked files together over 10.5 MB): "part 10.txt"',
        '# untracked and left out (untracked files together over 10.5 MB): "part 11.txt"',
    ]
    included = {"a.py", small.name, *(f"part {number:02}.txt" for number in range(10))}
    assert rebuild(repository, patch, tmp_path / "clone").keys() == included


def test_header_is_limited(repository: Repository) -> None:
    """The header names 1,000 files and counts the rest."""
    for number in range(1005):
        repository.write(f"data/{number}.bin", b"\0")
    patch = uncommitted_patch(repository.root, {})
    assert patch.count(b"left out") == 1000
    assert b"# and 5 more\n" in patch


@pytest.mark.parametrize("tracked", [True, False])
def test_file_with_a_secret_is_left_out(repository: Repository, tmp_path: Path, tracked: bool) -> None:
    """A file whose change holds a secret is named in a warning and in the header; the others are included."""
    repository.write("good.py", "1\n")
    script = repository.write("login 1.py", "login()\n")
    repository.commit(*([] if tracked else [repository.root / "good.py"]))
    script.write_text(f'login(token="{SECRET}")\n')
    repository.write("good.py", "2\n")
    with pytest.warns(DerivaMLWarning, match=r"login 1\.py seems to hold a secret") as caught:
        patch = uncommitted_patch(repository.root, {})
    assert len(caught) == 1
    assert SECRET.encode() not in patch
    assert b'# left out, as its change holds a secret: "login 1.py"\n' in patch
    assert rebuild(repository, patch, tmp_path / "clone")["good.py"] == b"2\n"
    with pytest.raises(NotReproducible, match=r"login 1\.py"):
        uncommitted_patch(repository.root, {"DERIVA_ML_REQUIRE_CLEAN": "1"})


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("settings.yaml", "user: bob\n", "user: bob\npassword: correcthorse\n"),
        ("train.py", "x = 1\n", 'x = 2\nPASSWORD = "hunter2"\n'),
        ("train.py", 'PASSWORD = "hunter2"\n', "x = 1\n"),
        ("near.py", 'PASSWORD = "hunter2"\nx = 1\n', 'PASSWORD = "hunter2"\nx = 2\n'),
        ("state.bin", b"\0\1", b"\0\2 " + SECRET.encode()),
        (".env", "", "NAME=value\n"),
        ("tls.pem", "", "abc\n"),
        ("note.ipynb", "", notebook(f"login('{SECRET}')")),
    ],
)
def test_secrets_are_detected(repository: Repository, name: str, before: str | bytes, after: str | bytes) -> None:
    """Secrets in added, removed and context lines, binary files, notebooks and secret files are detected."""
    repository.write(name, before)
    repository.commit()
    repository.write(name, after)
    with pytest.warns(DerivaMLWarning, match="secret"):
        patch = uncommitted_patch(repository.root, {})
    assert b"diff --git" not in patch
    assert b"left out" in patch


def test_remote_and_outputs_are_not_in_the_patch(repository: Repository) -> None:
    """The patch contains neither the remote's token nor a notebook's outputs."""
    repository.git("remote", "set-url", "origin", f"https://bob:{SECRET}@github.com/org/repo")
    repository.write("a.ipynb", notebook("print(1)", output=SECRET))
    assert SECRET.encode() not in uncommitted_patch(repository.root, {})


def test_notebook_without_outputs(repository: Repository, tmp_path: Path) -> None:
    """A changed notebook is rebuild as nbstripout leaves it, with the workflow's checksum."""
    repository.write("a.ipynb", notebook("print(1)", output="1"))
    repository.commit()
    changed = repository.write("a.ipynb", notebook("print(2)", output="two", identity="b"))
    repository.write("new.ipynb", notebook("print(3)", output="three"))
    patch = uncommitted_patch(repository.root, {})
    assert b"two" not in patch
    assert b"three" not in patch
    rebuilt = rebuild(repository, patch, tmp_path / "clone")
    assert json.loads(rebuilt["a.ipynb"])["cells"][0]["source"] == ["print(2)"]
    assert repository.git("hash-object", "--stdin", stdin=rebuilt["a.ipynb"]) == blob_hash(changed)
    assert json.loads(rebuilt["new.ipynb"])["cells"][0]["outputs"] == []


def test_notebook_that_only_ran(repository: Repository) -> None:
    """New outputs, counts and ids are not a change of a notebook."""
    repository.write("a.ipynb", notebook("print(1)"))
    repository.commit()
    repository.write("a.ipynb", notebook("print(1)", output="1", identity="z"))
    patch = uncommitted_patch(repository.root, {})
    assert b"diff --git" not in patch


def test_file_that_is_not_a_notebook(repository: Repository, tmp_path: Path) -> None:
    """A file that is only named like a notebook is included unchanged."""
    repository.write("a.ipynb", "no notebook\n")
    repository.write("b.ipynb", "[1]\n")
    repository.write("c.ipynb", "{}\n")
    repository.write("d.ipynb", b"\xff\xfe\n")
    assert rebuild(repository, uncommitted_patch(repository.root, {}), tmp_path / "new") == files(repository)


def test_submodules(repository: Repository, tmp_path: Path) -> None:
    """A submodule at another commit is in the patch; one with its own changes is named."""
    inner = make_repository(tmp_path / "inner")
    inner.write("a.py", "1")
    inner.commit()
    repository.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner.root), "lib")
    repository.commit()
    lib = Repository(repository.root / "lib")
    lib.write("a.py", "2")
    patch = uncommitted_patch(repository.root, {})
    assert b'# a submodule with its own uncommitted changes: "lib"\n' in patch
    commit = lib.commit()
    patch = uncommitted_patch(repository.root, {})
    assert f"+Subproject commit {commit}\n".encode() in patch
    assert b"its own uncommitted" not in patch


def test_nested_repository(repository: Repository) -> None:
    """An untracked repository inside is named, not included."""
    make_repository(repository.root / "inside").write("a.py", "1")
    patch = uncommitted_patch(repository.root, {})
    assert b'# untracked and left out (a nested repository): "inside/"\n' in patch


def test_unfinished_merge(repository: Repository, tmp_path: Path) -> None:
    """Conflict markers are content like any other."""
    repository.write("a.py", "1\n")
    repository.commit()
    repository.git("checkout", "-q", "-b", "side")
    repository.write("a.py", "2\n")
    repository.commit()
    repository.git("checkout", "-q", "main")
    repository.write("a.py", "3\n")
    repository.commit()
    subprocess.run(["git", "merge", "-q", "side"], cwd=repository.root, capture_output=True)
    assert b"<<<<<<<" in (repository.root / "a.py").read_bytes()
    assert rebuild(repository, uncommitted_patch(repository.root, {}), tmp_path / "clone") == files(repository)


def test_worktree(repository: Repository, tmp_path: Path) -> None:
    """A linked worktree has its own changes."""
    repository.write("a.py", "1\n")
    repository.commit()
    repository.git("worktree", "add", "-q", "-b", "other", str(tmp_path / 'tr"ee: x'))
    tree = Repository(tmp_path / 'tr"ee: x')
    tree.write("a.py", "2\n")
    tree.write("b.py", "3\n")
    assert rebuild(tree, uncommitted_patch(tree.root, {}), tmp_path / "clone") == files(tree)
    assert uncommitted_patch(repository.root, {}) == b""


def test_repository_is_unchanged(repository: Repository) -> None:
    """No byte of the repository changes: no object, no index, no lock."""
    repository.git("config", "core.splitIndex", "true")
    repository.write("a.py", "1\n")
    repository.commit()
    repository.write("a.py", "2\n")
    repository.write("b.ipynb", notebook("1"))
    before = read_all_files(repository.root)
    assert uncommitted_patch(repository.root, {})
    assert read_all_files(repository.root) == before


def test_failing_git(tmp_path: Path, git_settings: Path) -> None:
    """If git fails, the patch is empty, and a warning shows git's message."""
    with pytest.warns(DerivaMLWarning, match=r"Cannot record.*not a git repository.*Commit them"):
        assert uncommitted_patch(tmp_path, {}) == b""


def test_nbstripout_as_git_filter(repository: Repository, tmp_path: Path) -> None:
    """With ``nbstripout --install``, the checksum is git's own, and a notebook that only ran is clean."""
    subprocess.run([sys.executable, "-m", "nbstripout", "--install"], cwd=repository.root, check=True)
    repository.git("config", "filter.nbstripout.extrakeys", "metadata.kernelspec cell.metadata.custom")
    text = json.loads(notebook("print(1)", output="1"))
    text["metadata"] = {"kernelspec": {"name": "python3", "display_name": "p"}}
    text["cells"][0]["metadata"] = {"custom": 1, "collapsed": True, "tags": ["x"]}
    file = repository.write("a.ipynb", json.dumps(text))
    repository.commit()
    assert blob_hash(file) == repository.hash(file) == repository.git("rev-parse", "HEAD:a.ipynb")
    repository.write("a.ipynb", json.dumps(text | {"metadata": {"kernelspec": {"name": "other", "display_name": "q"}}}))
    assert b"diff --git" not in uncommitted_patch(repository.root, {})
