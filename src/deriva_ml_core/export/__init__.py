"""Export of a run to the formats of other software: RO-Crate and PROV-JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from deriva_ml_core._files.atomic import write_atomic
from deriva_ml_core.connection import Connection
from deriva_ml_core.errors import ConfigurationError, FileConflict
from deriva_ml_core.export.contents import collect_execution_export
from deriva_ml_core.paths import require_current_folder

__all__ = ["ExportFormat", "IncludedFiles", "export_execution", "export_prov"]

ExportFormat = Literal["ro-crate", "prov-json"]
IncludedFiles = Literal["none", "records", "outputs", "all"]

INCLUDED_ROLES: Mapping[IncludedFiles, frozenset[str]] = MappingProxyType(
    {
        "none": frozenset(),
        "records": frozenset({"records"}),
        "outputs": frozenset({"records", "outputs"}),
        "all": frozenset({"records", "outputs", "inputs"}),
    }
)
"""The roles of the files that an RO-Crate contains."""


def export_execution(
    connection: Connection,
    rid: str,
    path: Path,
    *,
    format_: ExportFormat,
    include: IncludedFiles,
    license_: str,
    as_zip: bool,
) -> Path:
    """Export an execution; see ``DerivaML.export``."""
    for name, value, choices in (("format", format_, get_args(ExportFormat)), ("include", include, INCLUDED_ROLES)):
        if value not in choices:
            raise ConfigurationError(f"{name}={value!r} is not one of {', '.join(choices)}.")
    require_current_folder(path)
    if path.exists():
        raise FileConflict(f"{path} already exists; choose another path (--into).")
    if format_ == "prov-json":
        text = export_prov(connection, rid)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text, durable=True)
        return path
    from deriva_ml_core.export.rocrate import DEFAULT_LICENSE, write_crate

    return write_crate(
        connection,
        collect_execution_export(connection, rid),
        path,
        included_roles=INCLUDED_ROLES[include],
        license_=license_ or DEFAULT_LICENSE,
        as_zip=as_zip,
    )


def export_prov(connection: Connection, rid: str) -> str:
    """Return an execution as PROV-JSON text; see ``DerivaML.export_prov``."""
    from deriva_ml_core.export.prov import to_prov_json

    return to_prov_json(connection, collect_execution_export(connection, rid))
