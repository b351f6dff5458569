"""All that we ask of git: where a file's code is and what is not committed, read only; and to rebuild it elsewhere."""

from __future__ import annotations

from deriva_ml_core.git.checksum import blob, blob_hash, without_outputs
from deriva_ml_core.git.patch import uncommitted_patch
from deriva_ml_core.git.rebuilding import rebuild
from deriva_ml_core.git.remote import blob_url, tree_url, web_url
from deriva_ml_core.git.source import file_source, given_source
from deriva_ml_core.git.state import RepositoryState, repository_state

__all__ = [
    "RepositoryState",
    "blob",
    "blob_hash",
    "blob_url",
    "file_source",
    "given_source",
    "rebuild",
    "repository_state",
    "tree_url",
    "uncommitted_patch",
    "web_url",
    "without_outputs",
]
