"""Rebuild the work tree of a run: check out a commit in a new folder, and apply a patch to it.

Commit, patch and remote come from a catalog, where anyone with write access can have written them. They must not cause
code to be executed: git runs no hooks, and in a clone and for the patch no filters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from deriva_ml_core.errors import NotReproducible
from deriva_ml_core.git.command import GitResult, disable_filters, run_git

__all__ = ["Checkout", "checkout_commit"]

_COMMIT_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_NO_HOOKS = ("-c", "core.hooksPath=/dev/null")
_NO_SUBMODULES = ("-c", "submodule.recurse=false", "-c", "fetch.recurseSubmodules=false")
# the recorded address is a web address; the user's own settings (insteadOf) may replace it by one of another protocol
_ALLOW_FETCH = {"GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh"}


@dataclass(frozen=True, slots=True)
class Checkout:
    """The result of `checkout_commit`.

    Args:
        source: The repository or address that the commit came from.
        skipped_filters: The filters that files have and that were not run, such as ``lfs``.
    """

    source: str
    skipped_filters: tuple[str, ...] = ()


def checkout_commit(
    commit: str, folder: Path, *, patch: bytes = b"", repositories: Iterable[Path] = (), remote: str | None = None
) -> Checkout:
    """Check out a commit in a new folder: as a worktree of a repository that has it, else as a clone of the remote.

    Args:
        commit: The full hash of the commit.
        folder: The new folder; it must not exist.
        patch: A patch from `uncommitted_patch`; empty for none.
        repositories: Folders in repositories that the user trusts, as their filters are run; missing ones are skipped.
        remote: The web address of the repository, or None. It is cloned without hooks and filters.

    Raises:
        NotReproducible: No repository has the commit, or the patch does not apply.
    """
    if not _COMMIT_HASH.fullmatch(commit):
        raise NotReproducible(f"{commit!r} is not the full hash of a commit, so it cannot be checked out.")
    candidates = [str(each) for each in repositories if each.is_dir()]
    source = next((each for each in candidates if _has_commit(Path(each), commit)), None)
    if source is not None:
        # forced, as git remembers a worktree there even if its folder was deleted
        worktree = ("worktree", "add", "--force", "--detach", str(folder.absolute()), commit)
        _require_success(run_git(Path(source), *_NO_HOOKS, *worktree))
        checkout = Checkout(source)
    elif remote is not None and _is_web_address(remote) and _clone(remote, folder, commit):
        checkout = Checkout(remote, tuple(_list_used_filters(folder)))
    else:
        raise NotReproducible(_explain_not_found(commit, candidates, remote))
    if patch:
        arguments = ("apply", "--binary", "--whitespace=nowarn", "-")
        applied = run_git(folder, *_NO_HOOKS, *disable_filters(folder), *arguments, input_bytes=patch)
        if not applied.ok and b"\ndiff --git " in patch:
            raise NotReproducible(f"Cannot apply the uncommitted changes in {folder}: {_error_message(applied)}.")
    return checkout


def _explain_not_found(commit: str, candidates: list[str], remote: str | None) -> str:
    where = "is not in the current repository" if not candidates else f"is not in {', '.join(candidates)}"
    if remote is None:
        reason = "no remote was recorded"
    elif not _is_web_address(remote):
        reason = f"the recorded remote {remote!r} is not a web address, so it is not opened"
    else:
        reason = f"cannot be fetched from {remote}"
    return f"The commit {commit} {where}, and {reason}. Pass a clone that has it with --repository."


def _is_web_address(remote: str) -> bool:
    """Whether a recorded remote is the address of a server, not a path of this machine or an option of git."""
    try:
        parts = urlsplit(remote)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _has_commit(root: Path, commit: str) -> bool:
    return run_git(root, "cat-file", "-e", f"{commit}^{{commit}}").ok


def _clone(remote: str, folder: Path, commit: str) -> bool:
    """Clone a repository and check out a commit; False if the address does not answer or lacks the commit."""
    options: tuple[str, ...] = (*_NO_HOOKS, *_NO_SUBMODULES)
    # an empty template copies no hooks of the user into the clone
    arguments = ("clone", "--quiet", "--no-checkout", "--template=", "--origin=origin", "--", remote)
    if not run_git(folder.absolute().parent, *options, *arguments, str(folder.absolute()), environ=_ALLOW_FETCH).ok:
        return False
    if (
        not _has_commit(folder, commit)
        and not run_git(folder, *options, "fetch", "--quiet", "origin", commit, environ=_ALLOW_FETCH).ok
    ):
        return False
    options = (*options, *disable_filters(folder))
    _require_success(run_git(folder, *options, "checkout", "--quiet", "--detach", commit, environ=_ALLOW_FETCH))
    return True


def _list_used_filters(folder: Path) -> list[str]:
    """Return the filters that the files of a work tree have."""
    files = run_git(folder, "ls-files", "-z").stdout
    # records of three: file, attribute, value
    values = run_git(folder, "check-attr", "-z", "--stdin", "filter", input_bytes=files).records[2::3]
    return sorted({value for value in values if value not in ("unspecified", "unset", "set")})


def _require_success(result: GitResult) -> None:
    if not result.ok:
        raise NotReproducible(f"Git cannot check out the commit: {_error_message(result)}.")


def _error_message(result: GitResult) -> str:
    return (result.stderr.strip().splitlines() or [f"git exited with status {result.exit_status}"])[-1]
