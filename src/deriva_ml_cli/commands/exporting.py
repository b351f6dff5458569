"""``deriva-ml export``: an execution in the words of other people's software."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.options import AsJson, CatalogNumber, Host, Rid, command

if TYPE_CHECKING:
    from deriva_ml_cli.account import Account
    from deriva_ml_core.client import DerivaML

__all__ = ["app"]


class Format(StrEnum):
    """What it is exported as."""

    ro_crate = "ro-crate"
    prov_json = "prov-json"


class Included(StrEnum):
    """Which files' bytes go into a crate."""

    none = "none"
    records = "records"
    outputs = "outputs"
    all = "all"


KINDS = {
    Included.none: frozenset[str](),
    Included.records: frozenset({"records"}),
    Included.outputs: frozenset({"records", "outputs"}),
    Included.all: frozenset({"records", "outputs", "inputs"}),
}


@command(
    "deriva-ml export 1-4A2C --format ro-crate",
    "deriva-ml export 1-4A2C --format ro-crate --files all --zip --license https://spdx.org/licenses/CC-BY-4.0",
    "deriva-ml export 1-4A2C --format prov-json > run.json",
)
def app(
    rid: Rid,
    format_: Annotated[Format, typer.Option("--format", "-f", help="What to write.")] = Format.ro_crate,
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="A new folder, or with --zip or prov-json a new file; crate-<RID> by default."
        ),
    ] = None,
    files: Annotated[
        Included, typer.Option("--files", help="Whose bytes a crate holds; other files are named by their URL.")
    ] = Included.records,
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
    from deriva_ml_cli.account import account_of
    from deriva_ml_cli.opening import opened

    _check(format_, files, zipped=zipped, license_=license_)
    target = _target(rid, format_, into, zipped=zipped)
    with opened(host, catalog) as ml:
        account = account_of(ml, rid)
        if format_ is Format.prov_json:
            _write_prov(ml, account, target, as_json=as_json)
        else:
            _write_crate(ml, account, target, files, zipped=zipped, license_=license_, as_json=as_json)


def _check(format_: Format, files: Included, *, zipped: bool, license_: str) -> None:
    from importlib.util import find_spec

    from deriva_ml_core.errors import ConfigurationError

    package = "prov" if format_ is Format.prov_json else "rocrate"
    if find_spec(package) is None:
        raise ConfigurationError(
            f"The package {package} is not installed: `pip install 'deriva-ml-core[export]'` brings it."
        )
    if format_ is Format.prov_json and (zipped or license_ or files is not Included.records):
        raise typer.BadParameter("--files, --zip and --license are for --format ro-crate.")


def _target(rid: str, format_: Format, into: Path | None, *, zipped: bool) -> Path | None:
    from deriva_ml_core.errors import FileConflict

    if into is None and format_ is Format.prov_json:
        return None
    target = (into or Path(f"crate-{rid}{'.zip' if zipped else ''}")).expanduser()
    if target.exists():
        raise FileConflict(f"{target} is there already: name another place with --into.")
    return target


def _write_prov(ml: DerivaML, account: Account, target: Path | None, *, as_json: bool) -> None:
    import json

    from deriva_ml_cli.prov_document import prov_document

    document = json.loads(prov_document(ml, account).serialize(format="json") or "{}")
    text = json.dumps(document, indent=2) + "\n"
    if target is None:
        typer.echo(text, nl=False)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    _tell(account, target, as_json=as_json)


def _write_crate(
    ml: DerivaML,
    account: Account,
    target: Path | None,
    files: Included,
    *,
    zipped: bool,
    license_: str,
    as_json: bool,
) -> None:
    from deriva_ml_cli.crate import LICENSE, write_crate

    assert target is not None
    write_crate(ml, account, target, included=KINDS[files], license_=license_ or LICENSE, zipped=zipped)
    _tell(account, target, as_json=as_json)


def _tell(account: Account, target: Path, *, as_json: bool) -> None:
    from deriva_ml_cli.screen import console, print_json, shown

    if as_json:
        print_json({"rid": account.rid, "path": target.absolute()})
    else:
        console().print(shown(target), soft_wrap=True)
