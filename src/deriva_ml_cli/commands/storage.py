"""``deriva-ml storage``: disk usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, command

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["app"]


@command("deriva-ml storage", "deriva-ml storage --json | jq .folders")
def app(as_json: AsJson = False, host: Host = None, catalog: CatalogNumber = None) -> None:
    """Show disk usage by table and by folder.

    Equal files are stored once, so the objects can take less space than the tables list.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    with open_client(host, catalog) as ml:
        usage = _measure_storage(ml)
    if as_json:
        print_json(usage)
    else:
        _print(usage, ml.connection.command("cleanup"))


def _measure_storage(ml: DerivaML) -> dict[str, Any]:
    from deriva_ml_cli.disk_usage import (
        CACHE_FOLDER,
        OBJECTS_FOLDER,
        executions_folder,
        free_space,
        measure_asset_tables,
        measure_disk_usage,
    )
    from deriva_ml_core.paths import CATALOG_FILENAME

    folder, counted = ml.connection.folder, set[tuple[int, int]]()
    paths = {
        "catalog": folder / CATALOG_FILENAME,
        "objects": folder / OBJECTS_FOLDER,
        "working folders": executions_folder(ml),
        "downloaded datasets": folder / CACHE_FOLDER,
    }
    folders = []
    for name, path in paths.items():
        if path.exists():
            usage = measure_disk_usage(path, counted)
            folders.append({"name": name, "path": path, "files": usage.files, "bytes": usage.bytes})
    free, total = free_space(folder)
    return {"tables": measure_asset_tables(ml), "folders": folders, "free": free, "disk": total}


def _print(storage: dict[str, Any], cleanup_command: str) -> None:
    from deriva_ml_cli.terminal import Column, print_note, print_table, print_title
    from deriva_ml_core._text import format_size

    numbers = Column("Files", align_right=True), Column("Size", align_right=True)
    print_title("Recorded files")
    rows = [
        (each["table"], f"{each['files']:,}", format_size(each["bytes"])) for each in storage["tables"] if each["files"]
    ]
    if rows:
        print_table([Column("Table", style="cyan"), *numbers], rows, indent=2)
    else:
        print_note("  none")
    print_title("On this machine")
    columns = [Column("Content"), *numbers, Column("Folder", flexible=True, style="dim")]
    folders = [
        (each["name"], f"{each['files']:,}", format_size(each["bytes"]), each["path"]) for each in storage["folders"]
    ]
    print_table(columns, folders, indent=2)
    free, total = format_size(storage["free"]), format_size(storage["disk"])
    print_note(f"  {free} of {total} are free; `{cleanup_command}` frees space.")
