"""Where a file's code is: its URL, checksum and version, and a warning for each thing that stands in the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deriva_ml_core.git.checksum import blob_hash, content_hash, is_notebook, strip_notebook
from deriva_ml_core.git.command import GitResult, run_git
from deriva_ml_core.git.remote import blob_url, remote_url
from deriva_ml_core.git.version import project_version
from deriva_ml_core.models import SourceCode
from deriva_ml_core.notices import warn_not_reproducible

__all__ = ["file_source", "file_source_with_url"]


@dataclass(frozen=True, slots=True)
class _FileLocation:
    """A file's place in a repository.

    Args:
        root: The work tree.
        path: The file's path in it.
        head: The commit that is checked out; None before the first one.
        blob: The file's hash in that commit; None where it is not in it.
    """

    root: Path
    path: str
    head: str | None = None
    blob: str | None = None


def file_source(file: Path, kind: str, environ: Mapping[str, str]) -> SourceCode:
    """Say where the code of a file is.

    Args:
        file: A script or a notebook.
        kind: Who found it: ``script`` or ``notebook``.
        environ: Environment variables; ``DERIVA_ML_REQUIRE_CLEAN=1`` makes an error of each warning.

    Returns:
        The URL of the last commit that touched the file, or its ``file:`` URI where there is none, with one warning
        that says what to do; the checksum of the file as it is now.

    Raises:
        NotReproducible: Instead of a warning.
        OSError: The file cannot be read.
    """
    # git knows the file itself, not a link to it from elsewhere
    file = file.resolve()
    answer = _query_location(file)
    place = _parse_location(file, answer) if answer.ok else None
    checksum = blob_hash(file)
    dirty = place is not None and not _is_clean(file, place, checksum)
    url = _find_url(file, place, environ, answer)
    if dirty and place and place.blob:
        warn_not_reproducible(
            f"{file} differs from its last commit, so what runs is in no commit. "
            "Commit it before running, so that the run can be repeated.",
            environ,
        )
    return SourceCode(
        url=url or file.as_uri(),
        checksum=checksum,
        version=project_version(file, place.root if place else None),
        path=file,
        repository=place.root if place else None,
        dirty=dirty,
        kind=kind,
    )


def file_source_with_url(file: Path, url: str, checksum: str) -> SourceCode:
    """What is known of a file whose URL and checksum were told by somebody who looked before: nothing is warned about.

    Args:
        file: A notebook that runs.
        url: Where its code is.
        checksum: Its checksum; empty for that of the file as it is now.

    Raises:
        OSError: The file cannot be read.
    """
    file = file.resolve()
    answer = _query_location(file)
    place = _parse_location(file, answer) if answer.ok else None
    present = blob_hash(file)
    return SourceCode(
        url=url,
        checksum=checksum or present,
        version=project_version(file, place.root if place else None),
        path=file,
        repository=place.root if place else None,
        dirty=place is not None and not _is_clean(file, place, present),
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
            f"{file} is in no commit of {location.root}, so nobody else can find it. "
            "Run `git add` and `git commit` on it before running.",
            environ,
        )
        return None
    remote = remote_url(location.root)
    if remote is None:
        warn_not_reproducible(
            f"The repository {location.root} has no remote with a web address, so {file.name} is recorded by its path "
            "on this machine. Add one with `git remote add origin <url>` and push.",
            environ,
        )
        return None
    # a clone without the history of its folders cannot say which commit touched a file
    touched = run_git(location.root, "rev-list", "-1", "HEAD", "--", location.path).lines or [str(location.head)]
    return blob_url(remote, touched[0], location.path)


def _explain_no_repository(file: Path, result: GitResult) -> str:
    if result.is_git_missing:
        return f"There is no git on this machine's PATH, so {file} is recorded by its path only. Install git."
    if result.is_untrusted:
        return (
            f"Git does not trust the repository of {file}, as its files belong to someone else, so the file is "
            "recorded by its path only. If you trust it, run `git config --global --add safe.directory <its folder>`."
        )
    return (
        f"{file} is in no git repository, so it is recorded by its path only. "
        "Run `git init`, commit it, and push it to a remote."
    )
