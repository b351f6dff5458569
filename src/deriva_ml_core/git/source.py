"""Where a file's code is: its URL, checksum and version, and a warning for each thing that stands in the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deriva_ml_core.git.checksum import blob_hash, is_notebook, plain_hash, stripped
from deriva_ml_core.git.command import Answer, ask
from deriva_ml_core.git.remote import blob_url, remote_url
from deriva_ml_core.git.version import project_version
from deriva_ml_core.models import SourceCode
from deriva_ml_core.notices import doubt

__all__ = ["file_source", "given_source"]


@dataclass(frozen=True, slots=True)
class _Place:
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
    answer = _asked(file)
    place = _placed(file, answer) if answer.ok else None
    checksum = blob_hash(file)
    dirty = place is not None and not _clean(file, place, checksum)
    url = _url(file, place, environ, answer)
    if dirty and place and place.blob:
        doubt(
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


def given_source(file: Path, url: str, checksum: str) -> SourceCode:
    """What is known of a file whose URL and checksum were told by somebody who looked before: nothing is warned about.

    Args:
        file: A notebook that runs.
        url: Where its code is.
        checksum: Its checksum; empty for that of the file as it is now.

    Raises:
        OSError: The file cannot be read.
    """
    file = file.resolve()
    answer = _asked(file)
    place = _placed(file, answer) if answer.ok else None
    present = blob_hash(file)
    return SourceCode(
        url=url,
        checksum=checksum or present,
        version=project_version(file, place.root if place else None),
        path=file,
        repository=place.root if place else None,
        dirty=place is not None and not _clean(file, place, present),
        kind="environment",
    )


def _asked(file: Path) -> Answer:
    return ask(
        file.parent, "rev-parse", "--show-toplevel", "--show-prefix", "--revs-only", "HEAD", f"HEAD:./{file.name}"
    )


def _placed(file: Path, answer: Answer) -> _Place:
    root, prefix, *objects = answer.lines
    return _Place(Path(root), prefix + file.name, *objects)


def _clean(file: Path, place: _Place, checksum: str) -> bool:
    if place.blob in (None, checksum):
        return place.blob is not None
    if not is_notebook(file):
        return False
    committed = ask(place.root, "cat-file", "blob", str(place.blob))
    return committed.ok and plain_hash(stripped(committed.output, file.parent)) == checksum


def _url(file: Path, place: _Place | None, environ: Mapping[str, str], answer: Answer) -> str | None:
    if place is None:
        doubt(_no_repository(file, answer), environ)
        return None
    if place.blob is None:
        doubt(
            f"{file} is in no commit of {place.root}, so nobody else can find it. "
            "Run `git add` and `git commit` on it before running.",
            environ,
        )
        return None
    remote = remote_url(place.root)
    if remote is None:
        doubt(
            f"The repository {place.root} has no remote with a web address, so {file.name} is recorded by its path "
            "on this machine. Add one with `git remote add origin <url>` and push.",
            environ,
        )
        return None
    # a clone without the history of its folders cannot say which commit touched a file
    touched = ask(place.root, "rev-list", "-1", "HEAD", "--", place.path).lines or [str(place.head)]
    return blob_url(remote, touched[0], place.path)


def _no_repository(file: Path, answer: Answer) -> str:
    if answer.missing:
        return f"There is no git on this machine's PATH, so {file} is recorded by its path only. Install git."
    if answer.refused:
        return (
            f"Git does not trust the repository of {file}, as its files belong to someone else, so the file is "
            "recorded by its path only. If you trust it, run `git config --global --add safe.directory <its folder>`."
        )
    return (
        f"{file} is in no git repository, so it is recorded by its path only. "
        "Run `git init`, commit it, and push it to a remote."
    )
