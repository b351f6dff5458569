"""What a repository is like when a run begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deriva_ml_core.git.command import run_git
from deriva_ml_core.git.source import remote_url

__all__ = ["RepositoryState", "repository_state"]


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """A repository at one moment: with HEAD and the uncommitted changes the code can be rebuilt.

    Args:
        root: Its work tree.
        head: The commit that is checked out; None before the first one.
        branch: The branch; None where none is checked out.
        dirty: Whether anything differs from that commit, or is untracked and not ignored.
        remote: Its address for a browser, without user names and tokens; None where it has none.
        user: Who commits there by git's settings: ``name`` and ``email``, as far as they are set.
    """

    root: str
    head: str | None
    branch: str | None
    dirty: bool
    remote: str | None
    user: Mapping[str, str] = field(default_factory=dict)


def repository_state(root: Path) -> RepositoryState | None:
    """Ask git how a repository stands; None where it does not answer."""
    answer = run_git(root, "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=normal", "--no-renames")
    if not answer.ok:
        return None
    notes = dict(record[2:].split(" ", 1) for record in answer.records if record.startswith("# branch."))
    head, branch = notes.get("branch.oid"), notes.get("branch.head")
    return RepositoryState(
        root=str(root),
        head=None if head == "(initial)" else head,
        branch=None if branch == "(detached)" else branch,
        dirty=any(not record.startswith("# ") for record in answer.records),
        remote=remote_url(root),
        user=_read_user(root),
    )


def _read_user(root: Path) -> dict[str, str]:
    told = (
        each.partition("\n") for each in run_git(root, "config", "-z", "--get-regexp", r"^user\.(name|email)$").records
    )
    return {name.removeprefix("user."): value for name, _, value in told}
