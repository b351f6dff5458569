"""``deriva-ml export``: an execution in the words of other people's software."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Rid, command

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.export.contents import ExecutionExport

__all__ = ["app"]


class ExportFormat(StrEnum):
    """What it is exported as."""

    ro_crate = "ro-crate"
    prov_json = "prov-json"


class IncludedFiles(StrEnum):
    """Which files' bytes go into a crate."""

    none = "none"
    records = "records"
    outputs = "outputs"
    all = "all"


INCLUDED_ROLES = {
    IncludedFiles.none: frozenset[str](),
    IncludedFiles.records: frozenset({"records"}),
    IncludedFiles.outputs: frozenset({"records", "outputs"}),
    IncludedFiles.all: frozenset({"records", "outputs", "inputs"}),
}


@command(
    "deriva-ml export 1-4A2C --format ro-crate",
    "deriva-ml export 1-4A2C --format ro-crate --files all --zip --license https://spdx.org/licenses/CC-BY-4.0",
    "deriva-ml export 1-4A2C --format prov-json > run.json",
)
def app(
    rid: Rid,
    format_: Annotated[ExportFormat, typer.Option("--format", "-f", help="What to write.")] = ExportFormat.ro_crate,
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="A new folder, or with --zip or prov-json a new file; crate-<RID> by default."
        ),
    ] = None,
    files: Annotated[
        IncludedFiles, typer.Option("--files", help="Whose bytes a crate holds; other files are named by their URL.")
    ] = IncludedFiles.records,
    zipped: Annotated[bool, typer.Option("--zip", help="Pack the crate into one file.")] = False,
    license_: Annotated[
        str, typer.Option("--license", metavar="URL", help="The licence of what is in the crate.", show_default=False)
    ] = "",
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Tell an execution to other software, as an RO-Crate or as PROV-JSON.

    An RO-Crate of the Workflow Run Crate profiles is a folder with the code, where its bytes are at hand, the records,
    and a description of what ran, who ran it, what went in and came out, with sizes and checksums. PROV-JSON goes to
    standard output, unless --into names a file. The records name the machine, its user and its folders: --files none
    leaves them out. A catalog on this machine is named by its folder in either. Both need the packages of the extra
    `export`.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_core.export.contents import collect_execution_export

    _check_options(format_, files, zipped=zipped, license_=license_)
    target = _resolve_target(rid, format_, into, zipped=zipped)
    with open_client(host, catalog) as ml:
        account = collect_execution_export(ml.connection, rid)
        if format_ is ExportFormat.prov_json:
            _write_prov(ml, account, target, as_json=as_json)
        else:
            _write_crate(ml, account, target, files, zipped=zipped, license_=license_, as_json=as_json)


def _check_options(format_: ExportFormat, files: IncludedFiles, *, zipped: bool, license_: str) -> None:
    from importlib.util import find_spec

    from deriva_ml_core.errors import ConfigurationError

    package = "prov" if format_ is ExportFormat.prov_json else "rocrate"
    if find_spec(package) is None:
        raise ConfigurationError(
            f"The package {package} is not installed: `pip install 'deriva-ml-core[export]'` brings it."
        )
    if format_ is ExportFormat.prov_json and (zipped or license_ or files is not IncludedFiles.records):
        raise typer.BadParameter("--files, --zip and --license are for --format ro-crate.")


def _resolve_target(rid: str, format_: ExportFormat, into: Path | None, *, zipped: bool) -> Path | None:
    from deriva_ml_core.errors import FileConflict

    if into is None and format_ is ExportFormat.prov_json:
        return None
    target = (into or Path(f"crate-{rid}{'.zip' if zipped else ''}")).expanduser()
    if target.exists():
        raise FileConflict(f"{target} is there already: name another place with --into.")
    return target


def _write_prov(ml: DerivaML, export: ExecutionExport, target: Path | None, *, as_json: bool) -> None:
    import json

    from deriva_ml_core._files.atomic import write_atomic
    from deriva_ml_core.export.prov import build_prov_document

    document = json.loads(build_prov_document(ml.connection, export).serialize(format="json") or "{}")
    text = json.dumps(document, indent=2) + "\n"
    if target is None:
        typer.echo(text, nl=False)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, text, durable=True)
    _print_result(export, target, as_json=as_json)


def _write_crate(
    ml: DerivaML,
    export: ExecutionExport,
    target: Path | None,
    files: IncludedFiles,
    *,
    zipped: bool,
    license_: str,
    as_json: bool,
) -> None:
    from deriva_ml_core.export.rocrate import DEFAULT_LICENSE, write_crate

    assert target is not None
    write_crate(
        ml.connection,
        export,
        target,
        included_roles=INCLUDED_ROLES[files],
        license_=license_ or DEFAULT_LICENSE,
        as_zip=zipped,
    )
    _print_result(export, target, as_json=as_json)


def _print_result(export: ExecutionExport, target: Path, *, as_json: bool) -> None:
    from deriva_ml_cli.terminal import create_console, print_json, safe_text

    if as_json:
        print_json({"rid": export.rid, "path": target.absolute()})
    else:
        create_console().print(safe_text(target), soft_wrap=True)
