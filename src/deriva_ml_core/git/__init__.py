"""Git: locate a file's code, collect uncommitted changes, and rebuild a work tree elsewhere.

The repository of the user is only read, but for the worktree that `checkout_commit` adds.
"""

from __future__ import annotations

from deriva_ml_core.git.checkout import checkout_commit
from deriva_ml_core.git.checksum import blob_hash, find_blob, read_without_outputs
from deriva_ml_core.git.patch import uncommitted_patch
from deriva_ml_core.git.source import (
    RepositoryState,
    blob_url,
    file_source,
    file_source_with_url,
    repository_state,
    tree_url,
    web_url,
)

__all__ = [
    "RepositoryState",
    "find_blob",
    "blob_hash",
    "blob_url",
    "file_source",
    "file_source_with_url",
    "checkout_commit",
    "repository_state",
    "tree_url",
    "uncommitted_patch",
    "web_url",
    "read_without_outputs",
]
