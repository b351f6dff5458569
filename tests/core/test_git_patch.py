"""The uncommitted changes as a patch: with HEAD it gives back the work tree, without secrets and without a trace."""

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


def rebuilt(repository: Repository, patch: bytes, folder: Path) -> dict[str, bytes]:
    """The files of HEAD with the patch applied by git, by name."""
    target = make_repository(folder) if not has_commits(repository) else cloned(repository, folder)
    target.git("apply", "--whitespace=nowarn", "-", given=patch)
    return files(target)


def cloned(repository: Repository, folder: Path) -> Repository:
    """A clone at HEAD."""
    subprocess.run(["git", "clone", "-q", str(repository.root), str(folder)], check=True)
    return Repository(folder)


def has_commits(repository: Repository) -> bool:
    """Whether there is a HEAD."""
    return subprocess.run(["git", "rev-parse", "-q", "--verify", "HEAD"], cwd=repository.root).returncode == 0


def files(repository: Repository) -> dict[str, bytes]:
    """All files of a work tree by name, a link as where it leads."""
    found = (path for path in repository.root.rglob("*") if ".git" not in path.relative_to(repository.root).parts)
    return {
        str(path.relative_to(repository.root)): b"-> " + os.fsencode(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        for path in found
        if path.is_symlink() or path.is_file()
    }


def all_bytes(root: Path) -> dict[str, bytes]:
    """All files below a folder, git's own included."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def notebook(source: str, output: str = "", identity: str = "a") -> str:
    """A notebook of one cell."""
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


def test_nothing_to_keep(repository: Repository) -> None:
    """A clean work tree gives no patch, whatever it ignores."""
    repository.write(".gitignore", "*.log")
    repository.commit()
    repository.write("run.log", "x")
    assert uncommitted_patch(repository.root, {}) == b""


def test_a_change_of_the_same_length_in_the_tick_of_the_commit(repository: Repository, tmp_path: Path) -> None:
    """Git takes such a file for unchanged unless it sees when the index was written, and looks into it then."""
    repository.git("config", "core.trustctime", "false")
    tick = (1_600_000_000, 1_600_000_000)
    os.utime(repository.write("near.py", "x = 1\n"), tick)
    repository.commit()
    os.utime(repository.root / ".git" / "index", tick)
    os.utime(repository.write("near.py", "x = 2\n"), tick)
    patch = uncommitted_patch(repository.root, {})
    assert rebuilt(repository, patch, tmp_path / "clone")["near.py"] == b"x = 2\n"


def test_every_kind_of_change_comes_back(repository: Repository, tmp_path: Path) -> None:
    """Changed, added, removed, renamed, binary, linked, executable, staged and untracked: the patch rebuilds all."""
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
    assert rebuilt(repository, patch, tmp_path / "clone") == files(repository)
    assert os.access(tmp_path / "clone" / "mode.sh", os.X_OK)


def test_before_the_first_commit(repository: Repository, tmp_path: Path) -> None:
    """Without a commit the patch rebuilds the files in an empty folder."""
    repository.write("a.py", "1\n")
    repository.git("add", "a.py")
    repository.write("b.py", "2\n")
    patch = uncommitted_patch(repository.root, {})
    assert b"on no commit" in patch
    assert rebuilt(repository, patch, tmp_path / "new") == {"a.py": b"1\n", "b.py": b"2\n"}


def test_the_heading_names_the_commit(repository: Repository) -> None:
    """The patch says what it is to be applied on."""
    repository.write("a.py", "1")
    head = repository.commit()
    repository.write("a.py", "2")
    assert uncommitted_patch(repository.root, {}).startswith(f"# Uncommitted changes of repo on {head};".encode())


def test_settings_change_nothing(
    repository: Repository, git_settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patch can be applied whatever the user's git is set to."""
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
    assert rebuilt(repository, patch, tmp_path / "clone") == files(repository)


def test_line_endings_that_git_would_refuse(repository: Repository, git_settings: Path) -> None:
    """Where git is set to refuse what it cannot give back to the byte, the patch is made all the same."""
    git_settings.write_text(git_settings.read_text() + "[core]\n\tsafecrlf = true\n\tautocrlf = input\n")
    repository.write("a.txt", "one\r\ntwo\r\n")
    assert b"+one\n+two\n" in uncommitted_patch(repository.root, {})


def test_untracked_files_that_are_too_much(repository: Repository, tmp_path: Path) -> None:
    """Large and binary untracked files are named with the reason; text up to 1 MiB each, 10 MiB in all, is kept."""
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
        '# untracked and not kept (binary, 6 B): "image.png"',
        '# untracked and not kept (1.0 MB): "large.txt"',
        '# untracked and not kept (untracked files together over 10.5 MB): "part 10.txt"',
        '# untracked and not kept (untracked files together over 10.5 MB): "part 11.txt"',
    ]
    kept = {"a.py", small.name, *(f"part {number:02}.txt" for number in range(10))}
    assert rebuilt(repository, patch, tmp_path / "clone").keys() == kept


def test_many_names_are_counted(repository: Repository) -> None:
    """A thousand names are enough; the rest is a number."""
    for number in range(1005):
        repository.write(f"data/{number}.bin", b"\0")
    patch = uncommitted_patch(repository.root, {})
    assert patch.count(b"not kept") == 1000
    assert b"# and 5 more\n" in patch


@pytest.mark.parametrize("tracked", [True, False])
def test_a_secret_is_left_out_loudly(repository: Repository, tmp_path: Path, tracked: bool) -> None:
    """A file whose change holds a secret is named in a warning and in the heading, and the rest is kept."""
    repository.write("good.py", "1\n")
    script = repository.write("login 1.py", "login()\n")
    repository.commit(*([] if tracked else [repository.root / "good.py"]))
    script.write_text(f'login(token="{SECRET}")\n')
    repository.write("good.py", "2\n")
    with pytest.warns(DerivaMLWarning, match=r"login 1\.py seems to hold a secret") as said:
        patch = uncommitted_patch(repository.root, {})
    assert len(said) == 1
    assert SECRET.encode() not in patch
    assert b'# left out, as its change holds a secret: "login 1.py"\n' in patch
    assert rebuilt(repository, patch, tmp_path / "clone")["good.py"] == b"2\n"
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
def test_where_secrets_hide(repository: Repository, name: str, before: str | bytes, after: str | bytes) -> None:
    """Added, removed, beside a change, in a binary file, in a notebook, or in a file that is there for secrets."""
    repository.write(name, before)
    repository.commit()
    repository.write(name, after)
    with pytest.warns(DerivaMLWarning, match="secret"):
        patch = uncommitted_patch(repository.root, {})
    assert b"diff --git" not in patch
    assert b"left out" in patch


def test_secrets_in_a_remote_and_in_outputs_stay_out(repository: Repository) -> None:
    """Neither the remote's token nor a notebook's printed secret comes into a patch."""
    repository.git("remote", "set-url", "origin", f"https://bob:{SECRET}@github.com/org/repo")
    repository.write("a.ipynb", notebook("print(1)", output=SECRET))
    assert SECRET.encode() not in uncommitted_patch(repository.root, {})


def test_a_notebook_is_kept_without_its_outputs(repository: Repository, tmp_path: Path) -> None:
    """A changed notebook comes back as nbstripout leaves it, with the checksum that the workflow has."""
    repository.write("a.ipynb", notebook("print(1)", output="1"))
    repository.commit()
    changed = repository.write("a.ipynb", notebook("print(2)", output="two", identity="b"))
    repository.write("new.ipynb", notebook("print(3)", output="three"))
    patch = uncommitted_patch(repository.root, {})
    assert b"two" not in patch
    assert b"three" not in patch
    found = rebuilt(repository, patch, tmp_path / "clone")
    assert json.loads(found["a.ipynb"])["cells"][0]["source"] == ["print(2)"]
    assert repository.git("hash-object", "--stdin", given=found["a.ipynb"]) == blob_hash(changed)
    assert json.loads(found["new.ipynb"])["cells"][0]["outputs"] == []


def test_a_notebook_that_only_ran_is_no_change(repository: Repository) -> None:
    """New outputs, counts and ids are no change of a notebook."""
    repository.write("a.ipynb", notebook("print(1)"))
    repository.commit()
    repository.write("a.ipynb", notebook("print(1)", output="1", identity="z"))
    patch = uncommitted_patch(repository.root, {})
    assert b"diff --git" not in patch


def test_a_file_that_is_no_notebook(repository: Repository, tmp_path: Path) -> None:
    """What is only named like a notebook is kept as it is."""
    repository.write("a.ipynb", "no notebook\n")
    repository.write("b.ipynb", "[1]\n")
    repository.write("c.ipynb", "{}\n")
    repository.write("d.ipynb", b"\xff\xfe\n")
    assert rebuilt(repository, uncommitted_patch(repository.root, {}), tmp_path / "new") == files(repository)


def test_submodules(repository: Repository, tmp_path: Path) -> None:
    """A submodule at another commit is in the patch; one with changes of its own is named."""
    inner = make_repository(tmp_path / "inner")
    inner.write("a.py", "1")
    inner.commit()
    repository.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner.root), "lib")
    repository.commit()
    lib = Repository(repository.root / "lib")
    lib.write("a.py", "2")
    patch = uncommitted_patch(repository.root, {})
    assert b'# a submodule with uncommitted changes of its own: "lib"\n' in patch
    commit = lib.commit()
    patch = uncommitted_patch(repository.root, {})
    assert f"+Subproject commit {commit}\n".encode() in patch
    assert b"of its own" not in patch


def test_a_repository_within(repository: Repository) -> None:
    """An untracked repository inside is named, not entered."""
    make_repository(repository.root / "inside").write("a.py", "1")
    patch = uncommitted_patch(repository.root, {})
    assert b'# untracked and not kept (a repository of its own): "inside/"\n' in patch


def test_an_unfinished_merge(repository: Repository, tmp_path: Path) -> None:
    """Conflict marks are content like any other."""
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
    assert rebuilt(repository, uncommitted_patch(repository.root, {}), tmp_path / "clone") == files(repository)


def test_a_worktree(repository: Repository, tmp_path: Path) -> None:
    """A linked work tree has its own changes."""
    repository.write("a.py", "1\n")
    repository.commit()
    repository.git("worktree", "add", "-q", "-b", "other", str(tmp_path / 'tr"ee: x'))
    tree = Repository(tmp_path / 'tr"ee: x')
    tree.write("a.py", "2\n")
    tree.write("b.py", "3\n")
    assert rebuilt(tree, uncommitted_patch(tree.root, {}), tmp_path / "clone") == files(tree)
    assert uncommitted_patch(repository.root, {}) == b""


def test_a_patch_leaves_no_trace(repository: Repository) -> None:
    """Not a byte of the repository changes: no object, no index, no lock."""
    repository.git("config", "core.splitIndex", "true")
    repository.write("a.py", "1\n")
    repository.commit()
    repository.write("a.py", "2\n")
    repository.write("b.ipynb", notebook("1"))
    before = all_bytes(repository.root)
    assert uncommitted_patch(repository.root, {})
    assert all_bytes(repository.root) == before


def test_a_patch_that_fails_says_so(repository: Repository, tmp_path: Path) -> None:
    """Where git fails there is no patch, and a warning with git's own words."""
    repository.write("a.py", "1\n")
    repository.commit()
    repository.write(".gitattributes", "*.py filter=lost\n")
    repository.git("config", "filter.lost.clean", "no-such-program")
    repository.git("config", "filter.lost.required", "true")
    repository.write("a.py", "2\n")
    with pytest.warns(DerivaMLWarning, match=r"Cannot record.*lost.*Commit them"):
        assert uncommitted_patch(repository.root, {}) == b""
    with pytest.warns(DerivaMLWarning, match="Cannot record.*not a git repository"):
        assert uncommitted_patch(tmp_path, {}) == b""


def test_nbstripout_as_gits_filter(repository: Repository, tmp_path: Path) -> None:
    """With ``nbstripout --install`` the checksum is what git itself has, and a notebook that only ran is clean."""
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
