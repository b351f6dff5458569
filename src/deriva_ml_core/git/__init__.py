"""All that we ask of git: where a file's code is and what is not committed, read only; and to rebuild it elsewhere."""

from __future__ import annotations

from deriva_ml_core.git.checkout import checkout_commit
from deriva_ml_core.git.checksum import blob_hash, find_blob, read_without_outputs
from deriva_ml_core.git.patch import uncommitted_patch
from deriva_ml_core.git.repository import RepositoryState, repository_state
from deriva_ml_core.git.source import blob_url, file_source, file_source_with_url, tree_url, web_url

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
