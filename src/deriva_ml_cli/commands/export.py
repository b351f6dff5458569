"""``deriva-ml export``: a run in the formats of other software."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Rid, command

__all__ = ["app"]


class FormatOption(StrEnum):
    """The values of ``--format``."""

    ro_crate = "ro-crate"
    prov_json = "prov-json"


class FilesOption(StrEnum):
    """The values of ``--files``."""

    none = "none"
    records = "records"
    outputs = "outputs"
    all = "all"


@command(
    "deriva-ml export 1-4A2C --format ro-crate",
    "deriva-ml export 1-4A2C --zip --license https://spdx.org/licenses/CC-BY-4.0",
    "deriva-ml export 1-4A2C --format prov-json > run.json",
)
def app(
    rid: Rid,
    format_: Annotated[FormatOption, typer.Option("--format", "-f", help="The format.")] = FormatOption.ro_crate,
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="A new folder, or a new file with --zip or prov-json; crate-<RID> by default."
        ),
    ] = None,
    files: Annotated[
        FilesOption, typer.Option("--files", help="The files in a crate; other files are referenced by URL.")
    ] = FilesOption.records,
    zipped: Annotated[bool, typer.Option("--zip", help="Write the crate as a ZIP archive.")] = False,
    license_: Annotated[
        str, typer.Option("--license", metavar="URL", help="The licence of the crate's content.", show_default=False)
    ] = "",
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Export a run as RO-Crate or PROV-JSON.

    An RO-Crate (Workflow Run Crate profiles) is a folder with the code, if it is on this machine, the metadata files,
    and a description of the run: code, person, inputs and outputs with sizes and checksums.

    PROV-JSON is written to standard output unless --into names a file.

    The metadata files contain the names of the machine, its user and its folders; --files none leaves them out. An
    embedded catalog is cited by its folder in both formats. Both formats need the extra `export`.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import create_console, print_json, safe_text

    if format_ is FormatOption.prov_json and (zipped or license_ or files is not FilesOption.records):
        raise typer.BadParameter("--files, --zip and --license are for --format ro-crate.")
    with open_client(host, catalog) as ml:
        if format_ is FormatOption.prov_json and into is None:
            typer.echo(ml.export_prov(rid), nl=False)
            return
        path = ml.export(
            rid,
            into or Path(f"crate-{rid}{'.zip' if zipped else ''}"),
            format=format_.value,
            include=files.value,
            license=license_,
            as_zip=zipped,
        )
    if as_json:
        print_json({"rid": rid, "path": path.absolute()})
    else:
        create_console().print(safe_text(path), soft_wrap=True)
