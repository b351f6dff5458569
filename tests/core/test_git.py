"""Locating a file's code with git: URL, checksum, version and warnings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from repositories import Repository, make_repository

from deriva_ml_core.errors import DerivaMLWarning, NotReproducible
from deriva_ml_core.git import blob_hash, blob_url, file_source, repository_state, web_url
from deriva_ml_core.models import SourceCode

WEB = "https://github.com/org/repo"


def push(repository: Repository, commit: str = "HEAD", branch: str = "origin/main") -> None:
    """Record a commit as that of a remote branch, as ``git push`` does."""
    repository.git("update-ref", f"refs/remotes/{branch}", commit)


@contextmanager
def no_warnings() -> Iterator[None]:
    """Turn every warning into an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def source_without_warnings(file: Path) -> SourceCode:
    """Return the source of a script, and fail on a warning."""
    with no_warnings():
        return file_source(file, "script", {})


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://github.com/org/repo.git", WEB),
        ("https://github.com/org/repo", WEB),
        ("https://github.com/org/repo/", WEB),
        ("https://github.com/org/repo.git/", WEB),
        ("https://user@github.com/org/repo.git", WEB),
        ("https://user:tok@github.com/org/repo.git", WEB),
        ("https://x-access-token:tok%40en@github.com/org/repo.git", WEB),
        ("https://github.com/org/repo.git?private_token=tok#tok", WEB),
        ("http://github.com/org/repo.git", WEB),
        ("git@github.com:org/repo.git", WEB),
        ("github.com:org/repo.git", WEB),
        ("git@GitHub.com:/org/repo.git", WEB),
        ("ssh://git@github.com/org/repo.git", WEB),
        ("ssh://git@github.com:2222/org/repo.git", WEB),
        ("ssh://git:tok@github.com/org/repo.git", WEB),
        ("git+ssh://git@github.com/org/repo.git", WEB),
        ("git://github.com/org/repo.git", WEB),
        ("ssh://git@ssh.github.com:443/org/repo.git", WEB),
        ("https://git.example.org:8443/org/repo.git", "https://git.example.org:8443/org/repo"),
        ("http://git.example.org:8080/org/repo.git", "http://git.example.org:8080/org/repo"),
        ("https://gitlab.com/group/sub/group/repo.git", "https://gitlab.com/group/sub/group/repo"),
        ("git@gitlab.example.org:group/my repo.git", "https://gitlab.example.org/group/my%20repo"),
        ("ssh://git@[2001:db8::1]:22/org/repo.git", "https://[2001:db8::1]/org/repo"),
        ("git@[2001:db8::1]:org/repo.git", "https://[2001:db8::1]/org/repo"),
        ("https://example.org/~user/repo.git", "https://example.org/~user/repo"),
        ("/srv/git/repo.git", None),
        ("../repo", None),
        ("./a:b/repo", None),
        ("file:///srv/git/repo.git", None),
        ("C:/git/repo", None),
        ("ext::ssh -i key host", None),
        ("codecommit::us-east-1://repo", None),
        ("https://user:pass/word@github.com/org/repo.git", None),
        ("https://", None),
        ("https://github.com/", None),
        ("", None),
    ],
)
def test_web_url(address: str, expected: str | None) -> None:
    """Every form of a remote gives one https address without names and tokens, or None."""
    assert web_url(address) == expected


SAFE = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=%", min_size=1)


@given(
    SAFE,
    SAFE,
    st.sampled_from(["https://{}:{}@host.org/o/r.git", "ssh://{}:{}@host.org/o/r", "http://{}:{}@host.org/o/r"]),
)
def test_web_url_has_no_credentials(user: str, password: str, form: str) -> None:
    """User name and password do not affect the web address."""
    assert web_url(form.format(user, password)) == "https://host.org/o/r"


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("https://github.com/o/r", "https://github.com/o/r/blob/abc/a%20b/%C3%A9%23%3F.py"),
        ("https://git.example.org/o/r", "https://git.example.org/o/r/blob/abc/a%20b/%C3%A9%23%3F.py"),
        ("https://gitlab.com/o/s/r", "https://gitlab.com/o/s/r/-/blob/abc/a%20b/%C3%A9%23%3F.py"),
        ("https://gitlab.example.org/o/r", "https://gitlab.example.org/o/r/-/blob/abc/a%20b/%C3%A9%23%3F.py"),
        ("https://bitbucket.org/o/r", "https://bitbucket.org/o/r/src/abc/a%20b/%C3%A9%23%3F.py"),
    ],
)
def test_blob_url(remote: str, expected: str) -> None:
    """GitHub's form is used for GitHub and unknown hosts; GitLab and Bitbucket have their own; the path is quoted."""
    assert blob_url(remote, "abc", "a b/é#?.py") == expected


def test_committed_script(repository: Repository) -> None:
    """The URL has the last commit that changed the file, the checksum is git's hash, and there is no warning."""
    script = repository.write("src/train.py", "print(1)\n")
    commit = repository.commit()
    repository.write("README", "later")
    repository.commit()
    assert source_without_warnings(script) == SourceCode(
        url=f"{WEB}/blob/{commit}/src/train.py",
        checksum=repository.hash(script),
        version=repository.git("describe", "--always"),
        path=script,
        repository=repository.root,
        kind="script",
    )


def test_url_has_the_commit_of_the_file(repository: Repository) -> None:
    """Commits and merges that do not change the file do not change its URL."""
    script = repository.write("train.py", "1")
    repository.commit()
    repository.git("checkout", "-q", "-b", "side")
    repository.write("train.py", "2")
    touched = repository.commit()
    repository.git("checkout", "-q", "main")
    repository.write("other.py", "3")
    repository.commit()
    repository.git("merge", "-q", "--no-edit", "side")
    assert source_without_warnings(script).url == f"{WEB}/blob/{touched}/train.py"


@pytest.mark.parametrize(
    "name", ["a b/train me.py", "naïve/тест.py", "[a]*?.py", ":(top)x.py", "-x.py", "a'\"b.py", "a%20b.py"]
)
def test_any_file_name(repository: Repository, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """File names with spaces, non-ASCII or special characters work, from any working directory."""
    script = repository.write(name, "print(1)\n")
    commit = repository.commit()
    for other in ("axe.py", "x.py", "other.py"):
        repository.write(other, "x")
    repository.commit()
    monkeypatch.chdir("/")
    source = source_without_warnings(script)
    assert source.url == blob_url(WEB, commit, name)
    assert source.checksum == repository.hash(script)
    assert not source.dirty


def test_script_behind_a_link(repository: Repository, tmp_path: Path) -> None:
    """A link to the file or to its folder gives the source of the file itself."""
    script = repository.write("train.py", "print(1)\n")
    repository.commit()
    link = tmp_path / "link.py"
    link.symlink_to(script)
    folder = tmp_path / "folder"
    folder.symlink_to(repository.root)
    assert (
        source_without_warnings(link) == source_without_warnings(folder / "train.py") == source_without_warnings(script)
    )


def test_worktree(repository: Repository, tmp_path: Path) -> None:
    """A linked worktree has its own HEAD and the repository's remote."""
    repository.write("train.py", "1")
    repository.commit()
    repository.git("worktree", "add", "-q", "-b", "other", str(tmp_path / "tree"))
    tree = Repository(tmp_path / "tree")
    script = tree.write("train.py", "2")
    commit = tree.commit()
    source = source_without_warnings(script)
    assert source.url == f"{WEB}/blob/{commit}/train.py"
    assert source.repository == tree.root


def test_submodule(repository: Repository, tmp_path: Path) -> None:
    """A file of a submodule belongs to the submodule's repository."""
    inner = make_repository(tmp_path / "inner")
    inner.write("train.py", "1")
    commit = inner.commit()
    repository.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner.root), "lib")
    repository.git("-C", "lib", "remote", "set-url", "origin", "git@gitlab.com:group/lib.git")
    repository.commit()
    source = source_without_warnings(repository.root / "lib" / "train.py")
    assert source.url == f"https://gitlab.com/group/lib/-/blob/{commit}/train.py"
    assert source.repository == repository.root / "lib"


def test_another_remote_than_origin(repository: Repository) -> None:
    """Without ``origin`` another remote is used; with it, ``origin`` is."""
    script = repository.write("train.py", "1")
    commit = repository.commit()
    repository.git("remote", "add", "another", "https://example.org/a/b")
    assert source_without_warnings(script).url == f"{WEB}/blob/{commit}/train.py"
    repository.git("remote", "remove", "origin")
    assert source_without_warnings(script).url == f"https://example.org/a/b/blob/{commit}/train.py"


def test_insteadof_is_applied(repository: Repository, git_settings: Path) -> None:
    """``url.….insteadOf`` is applied, and a token in it is removed."""
    repository.git("remote", "set-url", "origin", "gh:org/repo.git")
    git_settings.write_text(git_settings.read_text() + '[url "https://bob:tok@github.com/"]\n\tinsteadOf = gh:\n')
    script = repository.write("train.py", "1")
    commit = repository.commit()
    assert source_without_warnings(script).url == f"{WEB}/blob/{commit}/train.py"


def test_shallow_clone(repository: Repository, tmp_path: Path) -> None:
    """In a clone with one commit, the URL has that commit."""
    repository.write("train.py", "1")
    repository.commit()
    repository.write("other.py", "1")
    head = repository.commit()
    subprocess.run(
        ["git", "clone", "-q", "--depth=1", f"file://{repository.root}", str(tmp_path / "clone")], check=True
    )
    clone = Repository(tmp_path / "clone")
    clone.git("remote", "set-url", "origin", "https://github.com/org/repo.git")
    assert source_without_warnings(clone.root / "train.py").url == f"{WEB}/blob/{head}/train.py"


def test_treeless_clone_fetches_nothing(repository: Repository, tmp_path: Path) -> None:
    """In a clone without trees the URL has HEAD, and nothing is fetched."""
    repository.git("config", "uploadpack.allowFilter", "true")
    repository.git("config", "uploadpack.allowAnySHA1InWant", "true")
    repository.write("src/train.py", "1")
    repository.commit()
    repository.write("other.py", "1")
    head = repository.commit()
    command = [
        "git",
        "clone",
        "-q",
        "-o",
        "server",
        "--filter=tree:0",
        f"file://{repository.root}",
        str(tmp_path / "clone"),
    ]
    subprocess.run(command, check=True)
    clone = Repository(tmp_path / "clone")
    clone.git("remote", "add", "origin", "https://github.com/org/repo.git")
    before = read_all_files(clone.root)
    assert source_without_warnings(clone.root / "src" / "train.py").url == f"{WEB}/blob/{head}/src/train.py"
    assert read_all_files(clone.root) == before


def test_dirty_script(repository: Repository) -> None:
    """A changed file causes one warning; the URL has the last commit, the checksum is the present one."""
    script = repository.write("train.py", "1")
    commit = repository.commit()
    repository.write("train.py", "2")
    with pytest.warns(DerivaMLWarning, match=r"train\.py differs from its last commit") as caught:
        source = file_source(script, "script", {})
    assert len(caught) == 1
    assert source.dirty
    assert source.url == f"{WEB}/blob/{commit}/train.py"
    assert source.checksum == repository.hash(script)


def test_staged_change_is_dirty(repository: Repository) -> None:
    """A change that is added but not committed is dirty."""
    script = repository.write("train.py", "1")
    repository.commit()
    repository.write("train.py", "2")
    repository.git("add", "train.py")
    with pytest.warns(DerivaMLWarning, match="differs"):
        assert file_source(script, "script", {}).dirty


def test_other_files_do_not_make_it_dirty(repository: Repository) -> None:
    """Changes of other files do not count."""
    script = repository.write("train.py", "1")
    repository.write("other.py", "1")
    repository.commit()
    repository.write("other.py", "2")
    repository.write("new.py", "2")
    assert not source_without_warnings(script).dirty


def test_unpushed_commit(repository: Repository) -> None:
    """A commit that no remote branch contains causes one warning, until it is pushed to any branch."""
    script = repository.write("train.py", "1")
    first = repository.commit()
    push(repository, branch="origin/dev")
    assert source_without_warnings(script).url == f"{WEB}/blob/{first}/train.py"
    repository.write("other.py", "1")
    head = repository.commit()
    with pytest.warns(DerivaMLWarning, match=rf"No remote branch contains the commit {head[:12]} .*git push") as caught:
        source = file_source(script, "script", {})
    assert len(caught) == 1
    assert source.url == f"{WEB}/blob/{first}/train.py"
    state = repository_state(repository.root)
    assert state
    assert (state.pushed, state.dirty) == (False, False)
    repository.git("branch", "local")
    repository.git("tag", "v1")
    with pytest.raises(NotReproducible, match="git push"):
        file_source(script, "script", {"DERIVA_ML_REQUIRE_CLEAN": "1"})
    push(repository, branch="backup/topic")
    source_without_warnings(script)
    repository.git("checkout", "-q", "--detach", first)
    source_without_warnings(script)
    assert (repository_state(repository.root) or state).pushed is True


def test_amended_commit_is_unpushed(repository: Repository, tmp_path: Path) -> None:
    """After a real push, an amended commit is unpushed."""
    server = tmp_path / "server.git"
    subprocess.run(["git", "init", "-q", "--bare", str(server)], check=True)
    repository.git("remote", "set-url", "--push", "origin", str(server))
    script = repository.write("train.py", "1")
    repository.commit()
    repository.git("push", "-q", "origin", "main")
    assert source_without_warnings(script).dirty is False
    repository.git("commit", "-q", "--amend", "-m", "other")
    with pytest.warns(DerivaMLWarning, match="git push"):
        file_source(script, "script", {})


def test_repository_without_remote_branches(repository: Repository) -> None:
    """Without any remote-tracking branch, as in a checkout of a tag, it is unknown whether a commit is pushed."""
    script = repository.write("train.py", "1")
    assert (repository_state(repository.root) or 1).pushed is None  # type: ignore[union-attr]
    repository.commit()
    source_without_warnings(script)
    assert (repository_state(repository.root) or 1).pushed is None  # type: ignore[union-attr]


@pytest.mark.parametrize("ignored", [True, False])
def test_untracked_script(repository: Repository, ignored: bool) -> None:
    """A file in no commit is recorded by its path, with one warning that says how to commit it."""
    repository.write(".gitignore", "train.py" if ignored else "")
    repository.commit()
    script = repository.write("train.py", "1")
    with pytest.warns(DerivaMLWarning, match="in no commit of .*git add.*git commit") as caught:
        source = file_source(script, "script", {})
    assert len(caught) == 1
    assert source.dirty
    assert (source.url, source.checksum) == (script.as_uri(), repository.hash(script))
    assert source.repository == repository.root


def test_removed_script_is_untracked(repository: Repository) -> None:
    """A file that a commit removed from git has no URL."""
    script = repository.write("train.py", "1")
    repository.commit()
    repository.git("rm", "-q", "--cached", "train.py")
    repository.git("commit", "-q", "-m", "out")
    with pytest.warns(DerivaMLWarning, match="in no commit"):
        assert file_source(script, "script", {}).url == script.as_uri()


def test_repository_without_commits(repository: Repository) -> None:
    """Without commits, the file is recorded by its path."""
    script = repository.write("train.py", "1")
    with pytest.warns(DerivaMLWarning, match="in no commit") as caught:
        source = file_source(script, "script", {})
    assert (len(caught), source.url, source.version) == (1, script.as_uri(), None)


def test_repository_without_a_remote(repository: Repository) -> None:
    """Without a remote, the file is recorded by its path, with one warning that says how to add one."""
    repository.git("remote", "set-url", "origin", "/srv/git/repo.git")
    script = repository.write("train.py", "1")
    repository.commit()
    with pytest.warns(DerivaMLWarning, match="no remote with a web address.*git remote add") as caught:
        source = file_source(script, "script", {})
    assert (len(caught), source.url, source.dirty) == (1, script.as_uri(), False)


def test_no_repository(git_settings: Path, tmp_path: Path) -> None:
    """Outside git, the source has the quoted file URI, git's plain hash, and one warning."""
    script = tmp_path / "a b" / "train.py"
    script.parent.mkdir()
    script.write_text("print(1)\n")
    with pytest.warns(DerivaMLWarning, match="in no git repository.*git init") as caught:
        source = file_source(script, "script", {})
    assert len(caught) == 1
    assert source.url == f"file://{tmp_path}/a%20b/train.py"
    assert source.checksum == "b917a726c93c2afbd95f2cfca3d3f4cde1313a0e" or len(source.checksum) == 40
    assert source.checksum == subprocess.check_output(["git", "hash-object", str(script)], text=True).strip()
    assert (source.repository, source.dirty, source.version) == (None, False, None)


def test_bare_repository(git_settings: Path, tmp_path: Path) -> None:
    """A file in a bare repository is in no work tree."""
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "bare.git")], check=True)
    script = tmp_path / "bare.git" / "train.py"
    script.write_text("1")
    with pytest.warns(DerivaMLWarning, match="in no git repository"):
        assert file_source(script, "script", {}).repository is None


def test_broken_repository(git_settings: Path, tmp_path: Path) -> None:
    """A folder with an invalid ``.git`` counts as no repository, with a warning."""
    script = tmp_path / "broken" / "train.py"
    (tmp_path / "broken" / ".git").mkdir(parents=True)
    (tmp_path / "broken" / ".git" / "HEAD").write_text("nonsense")
    script.write_text("1")
    with pytest.warns(DerivaMLWarning, match="in no git repository"):
        assert file_source(script, "script", {}).url == script.as_uri()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_repository_of_another_user(repository: Repository) -> None:
    """Git's refusal is respected, as the settings could run any command; the warning says how to trust the folder."""
    script = repository.write("train.py", "1")
    repository.commit()
    for path in [repository.root, *repository.root.rglob("*")]:
        os.chown(path, 12345, 12345)
    with pytest.warns(DerivaMLWarning, match="does not trust.*safe.directory") as caught:
        source = file_source(script, "script", {})
    assert (len(caught), source.url, source.repository) == (1, script.as_uri(), None)


def test_git_is_not_installed(repository: Repository, tmp_path: Path) -> None:
    """Without git, the file is recorded by its path, with a warning."""
    script = repository.write("train.py", "1")
    repository.commit()
    expected = repository.hash(script)
    code = (
        "import os, warnings; from pathlib import Path; from deriva_ml_core.git import file_source\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        f"    source = file_source(Path({str(script)!r}), 'script', os.environ)\n"
        "print(source.url, source.checksum, len(caught), caught[0].message)"
    )
    environ = {**os.environ, "PATH": str(tmp_path / "empty")}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{script.as_uri()} {expected} 1 git is not on the PATH")


@pytest.mark.parametrize("trouble", ["dirty", "untracked", "unpushed", "no remote", "no repository"])
def test_require_clean(repository: Repository, tmp_path: Path, trouble: str) -> None:
    """``DERIVA_ML_REQUIRE_CLEAN=1`` turns each warning into an error."""
    script = repository.write("train.py", "1")
    repository.commit()
    assert file_source(script, "script", {"DERIVA_ML_REQUIRE_CLEAN": "1"}).url.startswith(WEB)
    if trouble == "dirty":
        script.write_text("2")
    elif trouble == "untracked":
        script = repository.write("new.py", "2")
    elif trouble == "unpushed":
        push(repository)
        repository.git("commit", "-q", "--allow-empty", "-m", "more")
    elif trouble == "no remote":
        repository.git("remote", "remove", "origin")
    else:
        script = Path(shutil.copy(script, tmp_path / "alone.py"))
    with pytest.raises(NotReproducible, match="DERIVA_ML_REQUIRE_CLEAN"):
        file_source(script, "script", {"DERIVA_ML_REQUIRE_CLEAN": "1"})


def test_git_settings_have_no_effect(
    repository: Repository, git_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the user's settings nor git's environment variables change the result."""
    script = repository.write("é/train.py", "1")
    commit = repository.commit()
    expected = source_without_warnings(script)
    git_settings.write_text(
        git_settings.read_text()
        + "[color]\n\tui = always\n[core]\n\tquotepath = true\n\tpager = false\n\tfsmonitor = true\n"
        "[log]\n\tshowSignature = true\n\tshowRoot = false\n\tfollow = true\n[status]\n\trelativePaths = true\n"
        "[diff]\n\texternal = false\n\tnoprefix = true\n"
    )
    other = make_repository(repository.root.parent / "other")
    monkeypatch.setenv("GIT_DIR", str(other.root / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.root))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other.root / "none"))
    monkeypatch.setenv("GIT_GLOB_PATHSPECS", "1")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert source_without_warnings(script) == expected
    assert expected.url.endswith(f"/blob/{commit}/%C3%A9/train.py")


def test_checksum_applies_git_filters(repository: Repository) -> None:
    """Filters and line-ending rules change the checksum as they change git's hash."""
    repository.git("config", "filter.upper.clean", "tr a-z A-Z")
    repository.write(".gitattributes", "*.py filter=upper\n*.txt text\n")
    script, text = repository.write("train.py", "print\n"), repository.write("a.txt", "a\r\nb\r\n")
    repository.commit()
    assert blob_hash(script) == repository.hash(script) == repository.git("hash-object", "--stdin", stdin=b"PRINT\n")
    assert blob_hash(text) == repository.git("hash-object", "--stdin", stdin=b"a\nb\n")
    assert not source_without_warnings(script).dirty


def test_missing_filter(repository: Repository) -> None:
    """If git cannot run a required filter, the checksum is that of the plain bytes."""
    repository.git("config", "filter.lost.clean", "no-such-program")
    repository.git("config", "filter.lost.required", "true")
    script = repository.write("train.py", "print\n")
    repository.write(".gitattributes", "*.py filter=lost\n")
    assert blob_hash(script) == repository.git("hash-object", "--no-filters", "train.py")


def test_declared_version(repository: Repository) -> None:
    """The version comes from the nearest pyproject.toml above the file, up to the repository's root."""
    repository.write("pyproject.toml", '[project]\nname = "p"\nversion = "1.2.3"\n')
    repository.write("inner/pyproject.toml", '[project]\nname = "q"\nversion = "4.5.6"\n')
    outer, inner = repository.write("a/train.py", "1"), repository.write("inner/b/train.py", "1")
    (repository.root.parent / "pyproject.toml").write_text('[project]\nname = "r"\nversion = "9"\n')
    repository.commit()
    assert (source_without_warnings(outer).version, source_without_warnings(inner).version) == ("1.2.3", "4.5.6")
    (repository.root / "pyproject.toml").write_text("not = [toml")
    repository.git("tag", "v7")
    assert source_without_warnings(outer).version == "v7"


def test_version_by_setuptools_scm(repository: Repository) -> None:
    """A project that uses setuptools-scm has its version, and no version file is written."""
    pytest.importorskip("setuptools_scm")
    repository.write(
        "pyproject.toml", '[project]\nname = "p"\ndynamic = ["version"]\n[tool.setuptools_scm]\nversion_file = "v.py"\n'
    )
    script = repository.write("train.py", "1")
    repository.commit()
    repository.git("tag", "v0.3.1")
    assert source_without_warnings(script).version == "0.3.1"
    assert not (repository.root / "v.py").exists()
    repository.write("other.py", "1")
    repository.commit()
    assert source_without_warnings(script).version.startswith("0.3.2.dev1+g")  # type: ignore[union-attr]


def test_version_by_git(repository: Repository) -> None:
    """Without a declared version, git describes the commit by its tag."""
    script = repository.write("train.py", "1")
    repository.commit()
    repository.git("tag", "v1")
    assert source_without_warnings(script).version == "v1"
    repository.write("other.py", "1")
    head = repository.commit()
    assert source_without_warnings(script).version == f"v1-1-g{head[:7]}"


def test_repository_state(repository: Repository) -> None:
    """HEAD, branch, dirty flag and remote are right at each stage of a repository."""
    empty = repository_state(repository.root)
    assert empty and (empty.head, empty.branch, empty.dirty, empty.remote) == (None, "main", False, WEB)
    repository.write("a", "1")
    untracked = repository_state(repository.root)
    assert untracked and untracked.dirty
    head = repository.commit()
    clean = repository_state(repository.root)
    assert clean and (clean.root, clean.head, clean.dirty) == (str(repository.root), head, False)
    repository.git("checkout", "-q", "--detach")
    repository.write("a", "2")
    detached = repository_state(repository.root)
    assert detached and (detached.branch, detached.dirty) == (None, True)
    assert repository_state(repository.root.parent) is None


def test_detection_writes_nothing(repository: Repository) -> None:
    """Detection changes no byte of the repository, including its index."""
    script = repository.write("train.py", "1")
    repository.commit()
    os.utime(script, (1, 1))
    before = read_all_files(repository.root)
    source_without_warnings(script)
    state = repository_state(repository.root)
    assert state
    assert not state.dirty
    assert read_all_files(repository.root) == before


def read_all_files(root: Path) -> dict[str, bytes]:
    """Return the bytes of all files below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_number_of_git_commands(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clean script of a project with a declared version takes five git commands."""
    repository.write("pyproject.toml", '[project]\nname = "p"\nversion = "1"\n')
    script = repository.write("train.py", "1")
    repository.commit()
    push(repository)
    source_without_warnings(script)
    monkeypatch.setenv("GIT_TRACE2_EVENT", str(tmp_path / "trace"))
    source_without_warnings(script)
    assert (tmp_path / "trace").read_text().count('"event":"start"') == 5
