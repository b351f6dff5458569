"""``deriva-ml export``: runs in the formats of other software, or as a page of HTML."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, command

__all__ = ["app"]


class FormatOption(StrEnum):
    """The values of ``--format``."""

    ro_crate = "ro-crate"
    prov_json = "prov-json"
    html = "html"


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
    "deriva-ml export 1-4A2C 1-4B7E --format html --into comparison.html",
)
def app(
    rids: Annotated[
        list[str],
        typer.Argument(metavar="RID...", help="A RID, such as 1-4A2C; with html, at most 50.", show_default=False),
    ],
    format_: Annotated[FormatOption, typer.Option("--format", "-f", help="The format.")] = FormatOption.ro_crate,
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A new folder, or a new file with --zip, prov-json or html; crate-<RID> or run-<RID>.html by default.",
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
    """Export a run as RO-Crate, PROV-JSON or HTML.

    An RO-Crate (Workflow Run Crate profiles) is a folder with the code, if it is on this machine, the metadata files,
    and a description of the run: code, person, inputs and outputs with sizes and checksums.

    PROV-JSON is written to standard output unless --into names a file.

    HTML is one file to send to a colleague, without scripts: parameters, metrics, curves, images, lineage, code with
    its uncommitted changes, files and environment. Several runs are compared, with their curves in the same pictures.

    The metadata files contain the names of the machine, its user and its folders; --files none leaves them out. The
    page of HTML contains some of them. An embedded catalog is cited by its folder in all formats. RO-Crate and
    PROV-JSON need the extra `export`.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import create_console, print_json, safe_text

    if format_ is not FormatOption.ro_crate and (zipped or license_ or files is not FilesOption.records):
        raise typer.BadParameter("--files, --zip and --license are for --format ro-crate.")
    with open_client(host, catalog) as ml:
        if format_ is FormatOption.prov_json and into is None:
            if len(rids) > 1:
                raise typer.BadParameter("PROV-JSON holds one execution; pass one RID, or use --format html.")
            typer.echo(ml.export_prov(rids[0]), nl=False)
            return
        path = ml.export(
            rids,
            into,
            format=format_.value,
            include=files.value,
            license=license_,
            as_zip=zipped,
        )
    if as_json:
        print_json({**({"rid": rids[0]} if len(rids) == 1 else {"rids": rids}), "path": path.absolute()})
    else:
        create_console().print(safe_text(path), soft_wrap=True)
