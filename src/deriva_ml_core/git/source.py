"""Locate a file's code: URL, checksum and version, with a warning if a run cannot be repeated."""

from __future__ import annotations

import re
import tomllib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from deriva_ml_core.git.checksum import blob_hash, content_hash, is_notebook, strip_notebook
from deriva_ml_core.git.command import GitResult, query_status, run_git
from deriva_ml_core.models import SourceCode
from deriva_ml_core.user_warnings import warn_not_reproducible

__all__ = [
    "RepositoryState",
    "blob_url",
    "file_source",
    "file_source_with_url",
    "is_pushed",
    "project_version",
    "remote_url",
    "repository_state",
    "tree_url",
    "web_url",
]


@dataclass(frozen=True, slots=True)
class _FileLocation:
    """A file's location in a repository.

    Args:
        root: The work tree.
        path: The file's path in the work tree.
        head: The commit that is checked out; None before the first commit.
        blob: The file's hash in that commit; None if the commit does not contain the file.
    """

    root: Path
    path: str
    head: str | None = None
    blob: str | None = None


def file_source(file: Path, kind: str, environ: Mapping[str, str]) -> SourceCode:
    """Locate the code of a file.

    Args:
        file: A script or a notebook.
        kind: ``script`` or ``notebook``.
        environ: The environment variables; ``DERIVA_ML_REQUIRE_CLEAN=1`` turns each warning into an error.

    Returns:
        The file's URL at the last commit that changed it, and its present checksum. Without such a URL, the ``file:``
        URI, and a warning that says what to do.

    Raises:
        NotReproducible: Raised instead of a warning.
        OSError: The file cannot be read.
    """
    # git tracks the file itself, not a link to it from elsewhere
    file = file.resolve()
    result = _query_location(file)
    location = _parse_location(file, result) if result.ok else None
    checksum = blob_hash(file)
    dirty = location is not None and not _is_clean(file, location, checksum)
    url = _find_url(file, location, environ, result)
    if dirty and location and location.blob:
        warn_not_reproducible(
            f"{file} differs from its last commit. Commit it before running, so that the run can be repeated.",
            environ,
        )
    return SourceCode(
        url=url or file.as_uri(),
        checksum=checksum,
        version=project_version(file, location.root if location else None),
        path=file,
        repository=location.root if location else None,
        dirty=dirty,
        kind=kind,
    )


def file_source_with_url(file: Path, url: str, checksum: str) -> SourceCode:
    """Describe a file whose URL and checksum are already known; this causes no warnings.

    Args:
        file: The running notebook.
        url: The URL of its code.
        checksum: Its checksum; empty for the present one.

    Raises:
        OSError: The file cannot be read.
    """
    file = file.resolve()
    result = _query_location(file)
    location = _parse_location(file, result) if result.ok else None
    present = blob_hash(file)
    return SourceCode(
        url=url,
        checksum=checksum or present,
        version=project_version(file, location.root if location else None),
        path=file,
        repository=location.root if location else None,
        dirty=location is not None and not _is_clean(file, location, present),
        kind="environment",
    )


def _query_location(file: Path) -> GitResult:
    return run_git(
        file.parent, "rev-parse", "--show-toplevel", "--show-prefix", "--revs-only", "HEAD", f"HEAD:./{file.name}"
    )


def _parse_location(file: Path, result: GitResult) -> _FileLocation:
    root, prefix, *objects = result.lines
    return _FileLocation(Path(root), prefix + file.name, *objects)


def _is_clean(file: Path, location: _FileLocation, checksum: str) -> bool:
    if location.blob in (None, checksum):
        return location.blob is not None
    if not is_notebook(file):
        return False
    committed = run_git(location.root, "cat-file", "blob", str(location.blob))
    return committed.ok and content_hash(strip_notebook(committed.stdout, file.parent)) == checksum


def _find_url(file: Path, location: _FileLocation | None, environ: Mapping[str, str], result: GitResult) -> str | None:
    if location is None:
        warn_not_reproducible(_explain_no_repository(file, result), environ)
        return None
    if location.blob is None:
        warn_not_reproducible(
            f"{file} is in no commit of {location.root}, so this run cannot be repeated elsewhere. "
            "Run `git add` and `git commit` on it first.",
            environ,
        )
        return None
    remote = remote_url(location.root)
    if remote is None:
        warn_not_reproducible(
            f"The repository {location.root} has no remote with a web address, so {file.name} is recorded by its "
            "local path. Add a remote with `git remote add origin <url>` and push.",
            environ,
        )
        return None
    if is_pushed(location.root) is False:
        warn_not_reproducible(
            f"No remote branch contains the commit {str(location.head)[:12]} of {location.root}, so this run cannot be "
            "repeated elsewhere. Run `git push` first.",
            environ,
        )
    # a treeless clone does not know which commit changed a file
    commits = run_git(location.root, "rev-list", "-1", "HEAD", "--", location.path).lines or [str(location.head)]
    return blob_url(remote, commits[0], location.path)


def _explain_no_repository(file: Path, result: GitResult) -> str:
    if result.is_git_missing:
        return f"git is not on the PATH, so {file} is recorded by its path only. Install git."
    if result.is_untrusted:
        return (
            f"Git does not trust the repository of {file}, as its files belong to another user, so the file is "
            "recorded by its path only. If you trust it, run `git config --global --add safe.directory <its folder>`."
        )
    return (
        f"{file} is in no git repository, so it is recorded by its path only. "
        "Run `git init`, commit it, and push it to a remote."
    )


_SCP_ADDRESS = re.compile(r"(?:[^/@:]*@)?(?P<host>\[[^\]/]+\]|[^/@:\[\]]{2,}):(?!:|//)(?P<path>.+)", re.DOTALL)
_SCHEMES = frozenset({"http", "https", "ssh", "git", "git+ssh", "ssh+git"})
# alternative host names for SSH through a firewall
_SSH_HOST_ALIASES = {
    "ssh.github.com": "github.com",
    "altssh.gitlab.com": "gitlab.com",
    "altssh.bitbucket.org": "bitbucket.org",
}


def remote_url(root: Path) -> str | None:
    """Return the web address of the remote ``origin``, or of the first remote that has one; see `web_url`."""
    remotes: dict[str, str] = {}
    for line in run_git(root, "remote", "-v").lines:
        name, _, address = line.partition("\t")
        remotes.setdefault(name, re.sub(r" \((?:fetch|push)\).*$", "", address))
    addresses = [remotes.pop("origin", ""), *remotes.values()]
    return next(filter(None, map(web_url, addresses)), None)


def web_url(address: str) -> str | None:
    """Convert a remote's address to a web address.

    Args:
        address: An address of git: ``https://user:token@host/org/repo.git``, ``git@host:org/repo.git``, ``ssh://…``.

    Returns:
        ``https://host/org/repo``, without user names, tokens and ``.git``; None for a folder or an unknown form.
    """
    if "://" in address:
        return _convert_url(address)
    if match := _SCP_ADDRESS.fullmatch(address):
        return _build_url(match["host"], match["path"])
    return None


def _convert_url(address: str) -> str | None:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in _SCHEMES or not host:
        return None
    host = f"[{host}]" if ":" in host else host
    if parts.scheme == "http" and port:
        return _build_url(f"{host}:{port}", parts.path, "http")
    return _build_url(f"{host}:{port}" if parts.scheme == "https" and port else host, parts.path)


def _build_url(host: str, path: str, scheme: str = "https") -> str | None:
    path = unquote(path).strip("/").removesuffix(".git").rstrip("/")
    host = _SSH_HOST_ALIASES.get(host.lower(), host.lower())
    return f"{scheme}://{host}/{quote(path, safe='/~@+,')}" if path else None


def blob_url(repository: str, commit: str, path: str) -> str:
    """Return the web address of a file at a commit.

    Args:
        repository: An address from `web_url`.
        commit: The commit's hash.
        path: The file's path in the repository, with ``/``.

    Returns:
        ``…/blob/<commit>/<path>``, or the form of GitLab or Bitbucket if the repository is there.
    """
    host = urlsplit(repository).hostname or ""
    folder = "-/blob" if "gitlab" in host else "src" if "bitbucket" in host else "blob"
    return f"{repository}/{folder}/{commit}/{quote(path, safe='/')}"


def tree_url(address: str, commit: str) -> str:
    """Return the web address of a repository at a commit; empty if either is unknown.

    Args:
        address: The repository's address, as for `web_url`.
        commit: The commit's hash.
    """
    repository = web_url(address)
    if repository is None or not commit:
        return ""
    host = urlsplit(repository).hostname or ""
    folder = "-/tree" if "gitlab" in host else "src" if "bitbucket" in host else "tree"
    return f"{repository}/{folder}/{quote(commit, safe='')}"


def project_version(file: Path, root: Path | None) -> str | None:
    """Return the project's version: by setuptools-scm if configured, else from pyproject.toml, else ``git describe``.

    Args:
        file: A file of the project. The nearest pyproject.toml in its parent folders is used.
        root: The repository, where the search for pyproject.toml ends; None for no limit.

    Returns:
        The version, or None.
    """
    project = next(filter(Path.is_file, _pyproject_candidates(file, root)), None)
    settings = _read_pyproject(project) if project else {}
    if project and "setuptools_scm" in settings.get("tool", {}) and (version := _scm_version(project)):
        return version
    if isinstance(version := settings.get("project", {}).get("version"), str):
        return version
    described = run_git(root, "describe", "--tags", "--always") if root else None
    return described.lines[0] if described and described.ok else None


def _pyproject_candidates(file: Path, root: Path | None) -> Iterator[Path]:
    for folder in file.parents:
        yield folder / "pyproject.toml"
        if folder == root:
            return


def _read_pyproject(project: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(project.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _scm_version(project: Path) -> str | None:
    # the version is optional, so errors and warnings about the project's settings are ignored
    with warnings.catch_warnings(), suppress(Exception, SystemExit):
        warnings.simplefilter("ignore")
        from setuptools_scm import Configuration, _get_version

        return _get_version(Configuration.from_file(str(project)), force_write_version_files=False)
    return None


def is_pushed(root: Path) -> bool | None:
    """Whether a remote-tracking branch contains the commit that is checked out.

    Returns:
        None if this is unknown: there is no commit, or no remote-tracking branch, as in some clones for tests of a tag.
    """
    result = run_git(root, "rev-list", "--max-count=1", "HEAD", "--not", "--remotes")
    if not result.ok:
        return None
    if not result.lines:
        return True
    return False if run_git(root, "for-each-ref", "--count=1", "refs/remotes").lines else None


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """A repository at one moment. HEAD and the uncommitted changes together rebuild the code.

    Args:
        root: The work tree.
        head: The commit that is checked out; None before the first commit.
        branch: The branch that is checked out, or None.
        dirty: Whether a file differs from that commit, or is untracked and not ignored.
        remote: The web address of the remote, without user names and tokens, or None.
        pushed: Whether a remote-tracking branch contains HEAD; None if unknown.
        user: The committer in git's settings: ``name`` and ``email``, as far as they are set.
    """

    root: str
    head: str | None
    branch: str | None
    dirty: bool
    remote: str | None
    pushed: bool | None = None
    user: Mapping[str, str] = field(default_factory=dict)


def repository_state(root: Path, *, excluded: Iterable[Path] = ()) -> RepositoryState | None:
    """Return the state of a repository, or None if git fails.

    Args:
        root: The work tree.
        excluded: Files and folders whose changes do not count.
    """
    result = query_status(root, "--branch", "--untracked-files=normal", excluded=excluded)
    if not result.ok:
        return None
    notes = dict(record[2:].split(" ", 1) for record in result.records if record.startswith("# branch."))
    head, branch = notes.get("branch.oid"), notes.get("branch.head")
    return RepositoryState(
        root=str(root),
        head=None if head == "(initial)" else head,
        branch=None if branch == "(detached)" else branch,
        dirty=any(not record.startswith("# ") for record in result.records),
        remote=remote_url(root),
        pushed=is_pushed(root),
        user=_read_user(root),
    )


def _read_user(root: Path) -> dict[str, str]:
    settings = (
        each.partition("\n") for each in run_git(root, "config", "-z", "--get-regexp", r"^user\.(name|email)$").records
    )
    return {name.removeprefix("user."): value for name, _, value in settings}
