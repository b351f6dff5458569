"""The specifications of all hooks.

*First-result* hooks use the first result that is not None. *Collected* hooks keep the result of every plugin.
*Notifications* are sent to all plugins, and nothing that a plugin does there affects the run. Installed plugins are
called before built-ins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

from deriva_ml_core._deprecation import deprecated_names

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from deriva_ml_core.backend import Backend
    from deriva_ml_core.models import Address, ExecutionInfo, SourceCode, StagedAsset, StatusUpdate, UploadReport

__all__ = ["PROJECT", "CollectHooks", "NotificationHooks", "FirstResultHooks"]

PROJECT = "deriva_ml"
"""pluggy's project name, and the entry-point group of plugins."""

hookspec = pluggy.HookspecMarker(PROJECT)


class FirstResultHooks:
    """Hooks with one result: the first that is not None. Exceptions propagate."""

    @hookspec(firstresult=True)
    def detect_source(self, script: Path | None, environ: Mapping[str, str]) -> SourceCode | None:
        """Detect the source of the running code.

        Called when a `Workflow` is created without a URL from an argument or an environment variable.

        Args:
            script: The running file, as an absolute path with symlinks unresolved; None in an interactive session or a
                notebook, and for a program that is in no file.
            environ: The environment variables; the result must depend on nothing else of the process.
        """

    @hookspec(firstresult=True)
    def connect(self, address: Address) -> Backend | None:
        """Open the catalog and store at an address.

        Called when a `DerivaML` is created. To replace only the store or only the catalog of another plugin's backend,
        use ``@hookimpl(wrapper=True)`` and return ``dataclasses.replace(backend, store=…)``.
        """

    @hookspec(firstresult=True)
    def create_catalog(
        self, address: Address, project_name: str, acls: Mapping[str, Sequence[str]] | None
    ) -> str | None:
        """Create a catalog on a server, or add missing standard tables and terms to one, and return its id.

        The id is empty for an embedded catalog. Called by ``DerivaML.create``.

        Args:
            address: The server, and the id of an existing catalog; None as id creates a catalog. For an embedded
                catalog, its folder and its store.
            project_name: Name of the schema for the project's own tables. Empty for an embedded catalog.
            acls: Access rights by ERMrest's names; None gives all rights to the caller only.
        """


class CollectHooks:
    """Hooks that keep every result. A plugin that fails is logged and left out."""

    @hookspec
    def describe_environment(self, environ: Mapping[str, str]) -> Mapping[str, JsonValue] | None:
        """Add facts to an execution's environment snapshot, under the plugin's name.

        Called when an execution is created. Values whose names or forms look like secrets are redacted afterwards.
        """


class NotificationHooks:
    """Notifications, called in order from one background thread per execution. Exceptions are logged by plugin."""

    @hookspec
    def status_changed(self, execution: ExecutionInfo, update: StatusUpdate) -> None:
        """Receive each status once it is in the journal."""

    @hookspec
    def asset_registered(self, execution: ExecutionInfo, asset: StagedAsset) -> None:
        """Receive each file that ``asset_file_path`` staged."""

    @hookspec
    def outputs_uploaded(self, execution: ExecutionInfo, report: UploadReport) -> None:
        """Receive the report of each upload that uploaded a file or failed to."""


__getattr__ = deprecated_names(
    __name__,
    {
        "Questions": "FirstResultHooks",
        "Contributions": "CollectHooks",
        "News": "NotificationHooks",
    },
)
