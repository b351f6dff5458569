"""``deriva-ml storage``: where the bytes are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deriva_ml_cli.options import AsJson, CatalogNumber, Host, command

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["app"]


@command("deriva-ml storage", "deriva-ml storage --json | jq .folders")
def app(as_json: AsJson = False, host: Host = None, catalog: CatalogNumber = None) -> None:
    """Show where the bytes are, by table and by folder.

    Equal files are stored once, so that the objects may take less than the tables name.
    """
    from deriva_ml_cli.opening import opened
    from deriva_ml_cli.screen import print_json

    with opened(host, catalog) as ml:
        found = _found(ml)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _found(ml: DerivaML) -> dict[str, Any]:
    from deriva_ml_cli.places import CACHE, OBJECTS, amount_of, executions_folder, free_space, tables_of
    from deriva_ml_core.addresses import CATALOG_FILE

    folder, seen = ml.connection.folder, set[tuple[int, int]]()
    places = {
        "catalog": folder / CATALOG_FILE,
        "objects": folder / OBJECTS,
        "working folders": executions_folder(ml),
        "downloaded datasets": folder / CACHE,
    }
    folders = []
    for name, place in places.items():
        if place.exists():
            amount = amount_of(place, seen)
            folders.append({"name": name, "path": place, "files": amount.files, "bytes": amount.bytes})
    free, total = free_space(folder)
    return {"tables": tables_of(ml), "folders": folders, "free": free, "disk": total}


def _print(found: dict[str, Any]) -> None:
    from deriva_ml_cli.screen import Column, print_note, print_table, print_title
    from deriva_ml_cli.wording import size

    titles = Column("Files", right=True), Column("Size", right=True)
    print_title("Recorded files")
    rows = [(each["table"], f"{each['files']:,}", size(each["bytes"])) for each in found["tables"] if each["files"]]
    if rows:
        print_table([Column("Table", style="cyan"), *titles], rows, indent=2)
    else:
        print_note("  none")
    print_title("On this machine")
    columns = [Column("What"), *titles, Column("Where", flexible=True, style="dim")]
    places = [(each["name"], f"{each['files']:,}", size(each["bytes"]), each["path"]) for each in found["folders"]]
    print_table(columns, places, indent=2)
    print_note(f"  {size(found['free'])} of {size(found['disk'])} are free; `deriva-ml cleanup` says what can go.")
