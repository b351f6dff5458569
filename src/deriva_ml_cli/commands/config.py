"""``deriva-ml config``: the catalog in use, settings and installed versions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, command

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["app"]

VARIABLES = (
    "DERIVA_ML_HOME",
    "DERIVA_ML_STORE",
    "DERIVA_ML_WORKFLOW_URL",
    "DERIVA_ML_WORKFLOW_CHECKSUM",
    "DERIVA_ML_REQUIRE_CLEAN",
    "DERIVA_ML_DISABLED_PLUGINS",
)
"""The environment variables that this software reads."""

PACKAGES = ("deriva-ml-core", "deriva", "torch", "pytorch-lightning", "lightning", "keras", "hydra-zen")


@command("deriva-ml config", "deriva-ml config --json | jq -r .catalog")
def app(as_json: AsJson = False, host: Host = None, catalog: CatalogNumber = None) -> None:
    """Show the catalog, the settings and the installed versions."""
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    with open_client(host, catalog) as ml:
        settings = _collect_settings(ml)
    if as_json:
        print_json(settings)
    else:
        _print(settings)


def _collect_settings(ml: DerivaML) -> dict[str, Any]:
    import platform
    import sys
    from importlib.metadata import PackageNotFoundError, version

    from deriva_ml_cli.disk_usage import CACHE_FOLDER, executions_folder
    from deriva_ml_core.redaction import redact

    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    variables = redact({name: os.environ[name] for name in VARIABLES if name in os.environ})
    return {
        "catalog": ml.connection.catalog.name,
        "embedded": ml.connection.address.is_embedded,
        "working_folders": executions_folder(ml),
        "cache": ml.connection.folder / CACHE_FOLDER,
        "variables": variables,
        "versions": versions,
        "executable": sys.executable,
    }


def _print(settings: dict[str, Any]) -> None:
    from deriva_ml_cli.terminal import create_console, print_fields, print_note, print_title, safe_text

    create_console().print(safe_text("Catalog", "dim"), safe_text(settings["catalog"], "bold"))
    kind = "embedded" if settings["embedded"] else "on a server"
    print_fields({"kind": kind, "working folders": settings["working_folders"], "downloads": settings["cache"]})
    print_title("Environment")
    if settings["variables"]:
        print_fields(settings["variables"])
    else:
        print_note(f"  none of {', '.join(VARIABLES)} is set")
    print_title("Versions")
    print_fields({**settings["versions"], "executable": settings["executable"]})
