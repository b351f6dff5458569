"""Export of runs: to the formats of other software, RO-Crate and PROV-JSON, and to a page of HTML for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from deriva_ml_core._files.atomic import write_atomic
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import check_rid
from deriva_ml_core.errors import ConfigurationError, FileConflict
from deriva_ml_core.export.contents import collect_execution_export
from deriva_ml_core.paths import require_current_folder

__all__ = ["ExportFormat", "IncludedFiles", "export_execution", "export_prov"]

ExportFormat = Literal["ro-crate", "prov-json", "html"]
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
    rids: Sequence[str],
    path: Path | None,
    *,
    format_: ExportFormat,
    include: IncludedFiles,
    license_: str,
    as_zip: bool,
) -> Path:
    """Export executions; see ``DerivaML.export``."""
    for name, value, choices in (("format", format_, get_args(ExportFormat)), ("include", include, INCLUDED_ROLES)):
        if value not in choices:
            raise ConfigurationError(f"{name}={value!r} is not one of {', '.join(choices)}.")
    if format_ != "html" and len(rids) != 1:
        raise ConfigurationError(
            f"The format {format_} holds one execution, and these are {len(rids)}. Pass one RID, or use format='html'."
        )
    path = path or Path(_default_name(rids, format_, as_zip=as_zip))
    require_current_folder(path)
    if path.exists():
        raise FileConflict(f"{path} already exists; choose another path (--into).")
    if format_ != "ro-crate":
        text = export_prov(connection, rids[0]) if format_ == "prov-json" else _export_html(connection, rids)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text, durable=True)
        return path
    from deriva_ml_core.export.rocrate import DEFAULT_LICENSE, write_crate

    return write_crate(
        connection,
        collect_execution_export(connection, rids[0]),
        path,
        included_roles=INCLUDED_ROLES[include],
        license_=license_ or DEFAULT_LICENSE,
        as_zip=as_zip,
    )


def _default_name(rids: Sequence[str], format_: ExportFormat, *, as_zip: bool) -> str:
    """Return the name of a new file or folder in the current folder."""
    first = check_rid(rids[0]) if rids else "none"
    if format_ == "html":
        return f"run-{first}.html" if len(rids) == 1 else f"runs-{first}-and-{len(rids) - 1}-more.html"
    return f"prov-{first}.json" if format_ == "prov-json" else f"crate-{first}{'.zip' if as_zip else ''}"


def _export_html(connection: Connection, rids: Sequence[str]) -> str:
    from deriva_ml_core.export.run_report import render_run_page

    return render_run_page(connection, rids)


def export_prov(connection: Connection, rid: str) -> str:
    """Return an execution as PROV-JSON text; see ``DerivaML.export_prov``."""
    from deriva_ml_core.export.prov import to_prov_json

    return to_prov_json(connection, collect_execution_export(connection, rid))
