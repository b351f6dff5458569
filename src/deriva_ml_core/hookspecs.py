"""The whole conversation with plugins: questions, contributions and news.

A *question* is answered by the first plugin that knows; a *contribution* is kept from everyone who has one; *news* is
told to all, and nothing that a listener does can reach the run. Installed plugins are asked before built-ins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from deriva_ml_core.backend import Backend
    from deriva_ml_core.models import Address, ExecutionInfo, SourceCode, StagedAsset, StatusUpdate, UploadReport

from deriva_ml_core._deprecation import deprecated_names

__all__ = ["PROJECT", "CollectHooks", "NotificationHooks", "FirstResultHooks"]

PROJECT = "deriva_ml"
"""pluggy's project name, and the entry-point group in which plugins are found."""

hookspec = pluggy.HookspecMarker(PROJECT)


class FirstResultHooks:
    """Asked once, at the start; the first answer that is not None counts, and an exception goes up."""

    @hookspec(firstresult=True)
    def detect_source(self, script: Path | None, environ: Mapping[str, str]) -> SourceCode | None:
        """Say where the running code is.

        Asked when a `Workflow` is made without a URL, by argument or by environment variable.

        Args:
            script: The file that runs, absolute, symlinks unresolved; None in an interactive session or a notebook.
            environ: The environment variables, so that an answer depends on nothing else.
        """

    @hookspec(firstresult=True)
    def connect(self, address: Address) -> Backend | None:
        """Open the catalog and store at an address.

        Asked when a `DerivaML` is made. To take half of another's backend, say ``@hookimpl(wrapper=True)`` and return
        ``dataclasses.replace(backend, store=…)``.
        """

    @hookspec(firstresult=True)
    def create_catalog(
        self, address: Address, project_name: str, acls: Mapping[str, Sequence[str]] | None
    ) -> str | None:
        """Make a catalog on a server, or give one the standard tables and terms that it lacks, and return its number.

        Asked by ``DerivaML.create``.

        Args:
            address: The server, and the number of a catalog that is there; None for a new one.
            project_name: The name of the schema for the project's own tables.
            acls: Who may do what, by ERMrest's names for rights; None leaves all rights to the one who asks.
        """


class CollectHooks:
    """Asked of everyone, and all answers are kept; one that fails is warned about and left out."""

    @hookspec
    def describe_environment(self, environ: Mapping[str, str]) -> Mapping[str, JsonValue] | None:
        """Add facts to an execution's environment snapshot, under the plugin's name.

        Asked when an execution is created. Values whose names or forms look like secrets are redacted afterwards.
        """


class NotificationHooks:
    """Told to everyone from one thread beside the run, in order; what a listener raises is logged with its name."""

    @hookspec
    def status_changed(self, execution: ExecutionInfo, update: StatusUpdate) -> None:
        """Hear each status, once it is in the journal."""

    @hookspec
    def asset_registered(self, execution: ExecutionInfo, asset: StagedAsset) -> None:
        """Hear that a file was staged by ``asset_file_path``."""

    @hookspec
    def outputs_uploaded(self, execution: ExecutionInfo, report: UploadReport) -> None:
        """Hear what an upload sent and what it left, once per upload that sent or failed something."""


__getattr__ = deprecated_names(
    __name__,
    {
        "Questions": "FirstResultHooks",
        "Contributions": "CollectHooks",
        "News": "NotificationHooks",
    },
)
