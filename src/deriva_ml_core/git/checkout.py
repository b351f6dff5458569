"""Rebuild the work tree of a run: check out a commit in a new folder, and apply a patch to it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from deriva_ml_core.errors import NotReproducible
from deriva_ml_core.git.command import GitResult, run_git

__all__ = ["checkout_commit"]

_COMMIT_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_NO_HOOKS = ("-c", "core.hooksPath=/dev/null")
_ALLOW_FETCH = {"GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh"}


def checkout_commit(
    commit: str, folder: Path, *, patch: bytes = b"", repositories: Iterable[Path] = (), remote: str | None = None
) -> str:
    """Check out a commit in a new folder: as a worktree of a repository that has it, else as a clone of the remote.

    Args:
        commit: The full hash of the commit.
        folder: The new folder; it must not exist.
        patch: A patch from `uncommitted_patch`; empty for none.
        repositories: Folders in repositories that may have the commit; missing folders are skipped.
        remote: The repository's address, or None.

    Returns:
        The repository or address that the commit came from.

    Raises:
        NotReproducible: No repository has the commit, or the patch does not apply.
    """
    if not _COMMIT_HASH.fullmatch(commit):
        raise NotReproducible(f"{commit!r} is not the full hash of a commit, so it cannot be checked out.")
    candidates = [str(each) for each in repositories if each.is_dir()]
    source = next((each for each in candidates if _has_commit(Path(each), commit)), None)
    if source is not None:
        # forced, as git remembers a worktree there even if its folder was deleted
        arguments = ("worktree", "add", "--force", "--detach", str(folder.absolute()), commit)
        _require_success(run_git(Path(source), *_NO_HOOKS, *arguments))
    elif remote is not None and _clone(remote, folder, commit):
        source = remote
    else:
        raise NotReproducible(
            f"The commit {commit} is not in {', '.join(candidates) or 'any repository here'}, and cannot be fetched "
            f"from {remote or 'a remote, as none was recorded'}. Pass a clone that has it with --repository."
        )
    if patch:
        applied = run_git(folder, *_NO_HOOKS, "apply", "--binary", "--whitespace=nowarn", "-", input_bytes=patch)
        if not applied.ok and b"\ndiff --git " in patch:
            raise NotReproducible(f"Cannot apply the uncommitted changes in {folder}: {_error_message(applied)}.")
    return source


def _has_commit(root: Path, commit: str) -> bool:
    return run_git(root, "cat-file", "-e", f"{commit}^{{commit}}").ok


def _clone(remote: str, folder: Path, commit: str) -> bool:
    """Clone a repository and check out a commit; False if the address does not answer or lacks the commit."""
    target = str(folder.absolute())
    cloned = run_git(
        folder.absolute().parent, "clone", "--quiet", "--no-checkout", "--", remote, target, environ=_ALLOW_FETCH
    )
    if not cloned.ok:
        return False
    if (
        not _has_commit(folder, commit)
        and not run_git(folder, "fetch", "--quiet", "origin", commit, environ=_ALLOW_FETCH).ok
    ):
        return False
    _require_success(run_git(folder, *_NO_HOOKS, "checkout", "--quiet", "--detach", commit, environ=_ALLOW_FETCH))
    return True


def _require_success(result: GitResult) -> None:
    if not result.ok:
        raise NotReproducible(f"Git cannot check out the commit: {_error_message(result)}.")


def _error_message(result: GitResult) -> str:
    return (result.stderr.strip().splitlines() or [f"git exited with status {result.exit_status}"])[-1]
