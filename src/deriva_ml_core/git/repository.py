"""The state of a repository when a run starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deriva_ml_core.git.command import run_git
from deriva_ml_core.git.source import remote_url

__all__ = ["RepositoryState", "repository_state"]


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """A repository at one moment. HEAD and the uncommitted changes together rebuild the code.

    Args:
        root: The work tree.
        head: The commit that is checked out; None before the first commit.
        branch: The branch that is checked out, or None.
        dirty: Whether a file differs from that commit, or is untracked and not ignored.
        remote: The web address of the remote, without user names and tokens, or None.
        user: The committer in git's settings: ``name`` and ``email``, as far as they are set.
    """

    root: str
    head: str | None
    branch: str | None
    dirty: bool
    remote: str | None
    user: Mapping[str, str] = field(default_factory=dict)


def repository_state(root: Path) -> RepositoryState | None:
    """Return the state of a repository, or None if git fails."""
    result = run_git(root, "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=normal", "--no-renames")
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
        user=_read_user(root),
    )


def _read_user(root: Path) -> dict[str, str]:
    settings = (
        each.partition("\n") for each in run_git(root, "config", "-z", "--get-regexp", r"^user\.(name|email)$").records
    )
    return {name.removeprefix("user."): value for name, _, value in settings}
