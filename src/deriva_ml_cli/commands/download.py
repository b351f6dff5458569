"""``deriva-ml download``: an asset, or a version of a dataset as a bag."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Rid, command

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["app"]


@command(
    "deriva-ml download 1-4A2C",
    "deriva-ml download 1-05ZX --version 0.3.0 --into data",
)
def app(
    rid: Rid,
    into: Annotated[Path, typer.Option(metavar="FOLDER", help="The target folder.")] = Path(),
    version: Annotated[
        str | None, typer.Option(metavar="X.Y.Z", help="The version of a dataset; the current one by default.")
    ] = None,
    rows_only: Annotated[bool, typer.Option("--rows-only", help="Download a dataset without its files.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file or folder.")] = False,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Download an asset or a version of a dataset.

    An asset keeps its file name. A dataset becomes a BDBag, the folder Dataset_<RID>_<version>. All files are checked
    against their recorded MD5.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import create_console, print_json, safe_text
    from deriva_ml_core.paths import expand_home, require_current_folder

    target_folder = expand_home(into)
    require_current_folder(target_folder)
    with open_client(host, catalog) as ml:
        result = _download(ml, rid, target_folder, version, rows_only=rows_only, force=force)
    if as_json:
        print_json(result)
    else:
        create_console().print(safe_text(result["path"]), soft_wrap=True)


def _download(
    ml: DerivaML, rid: str, target_folder: Path, version: str | None, *, rows_only: bool, force: bool
) -> dict[str, Any]:
    from deriva_ml_core.analysis.runs import lookup_table
    from deriva_ml_core.definitions import MLTable
    from deriva_ml_core.errors import WrongTable

    table = lookup_table(ml.connection, rid)
    if table == MLTable.dataset:
        return _download_bag(ml, rid, target_folder, version, rows_only=rows_only, force=force)
    if not ml.connection.catalog.model.table(table).is_asset:
        raise WrongTable(
            f"{rid} is a row of {table}, which has no file; use the RID of an asset or a dataset. "
            f"`{ml.connection.command('show', rid)}` lists the assets of an execution."
        )
    if version or rows_only:
        raise typer.BadParameter("--version and --rows-only are for datasets, but this is an asset.")
    return _download_file(ml, rid, target_folder, force=force)


def _download_file(ml: DerivaML, rid: str, target_folder: Path, *, force: bool) -> dict[str, Any]:
    from deriva_ml_core.analysis.run_files import safe_file_name

    asset = ml.lookup_asset(rid)
    _check_target(target_folder / safe_file_name(asset), force=force)
    target = ml.download_asset(asset, target_folder, overwrite=force)
    return {"rid": rid, "path": target.absolute(), "length": asset.length, "md5": asset.md5}


def _download_bag(
    ml: DerivaML, rid: str, target_folder: Path, version: str | None, *, rows_only: bool, force: bool
) -> dict[str, Any]:
    import shutil

    from deriva_ml_core._files.atomic import temporary_folder

    bag = ml.lookup_dataset(rid).download_dataset_bag(version, materialize=not rows_only)
    target = target_folder / f"Dataset_{bag.dataset_rid}_{bag.version}"
    _check_target(target, force=force)
    target_folder.mkdir(parents=True, exist_ok=True)
    with temporary_folder(target_folder) as folder:
        copy = shutil.copytree(bag.path, folder / "bag")
        if target.is_dir():
            target.rename(folder / "old")
        copy.rename(target)
    return {"rid": bag.dataset_rid, "path": target.absolute(), "version": bag.version}


def _check_target(target: Path, *, force: bool) -> None:
    from deriva_ml_core.errors import FileConflict

    if target.exists() and not force:
        raise FileConflict(f"{target} already exists; choose another folder with --into, or replace it with --force.")
