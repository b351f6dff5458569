"""``deriva-ml upload``: staged files of earlier runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, command

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["app"]


@command("deriva-ml upload", "deriva-ml upload 1-4A2C --workers 8")
def app(
    rid: Annotated[
        str | None, typer.Argument(metavar="RID", help="An execution; all on this machine by default.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            help="Files to upload at the same time.",
            show_default="up to 4 to a server, 1 to an embedded catalog",
        ),
    ] = None,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Upload staged files.

    A run whose process died is recorded as Aborted first. Without a RID, running executions are skipped. No file is
    uploaded twice.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    with open_client(host, catalog) as ml:
        results = _upload_executions(ml, rid, workers, quiet=as_json)
    if as_json:
        print_json({"executions": results})
    else:
        _print(results)
    if any(result["error"] for result in results):
        raise typer.Exit(1)


def _upload_executions(ml: DerivaML, rid: str | None, workers: int | None, *, quiet: bool) -> list[dict[str, Any]]:
    from deriva_ml_cli.disk_usage import find_unsent_executions

    if rid is not None:
        ml.lookup_execution(rid)
        return [_upload_execution(ml, rid, workers, quiet=quiet)]
    return [
        _build_result(each.rid, error="", running=True)
        if each.is_possibly_running
        else _upload_execution(ml, each.rid, workers, quiet=quiet)
        for each in find_unsent_executions(ml)
    ]


def _upload_execution(ml: DerivaML, rid: str, workers: int | None, *, quiet: bool) -> dict[str, Any]:
    from deriva_ml_core.errors import DerivaMLException, UnknownRID

    try:
        execution = ml.restore_execution(rid)
    except UnknownRID as error:
        folder = ml.connection.working_folder(rid)
        remedy = f"If a restored backup lacks it, restore a newer one, or move {folder} away."
        return _build_result(rid, error=f"{error} {remedy}")
    except DerivaMLException as error:
        return _build_result(rid, error=str(error))
    message, uploaded, records = "", {}, _count_pending_records(ml, rid)
    try:
        progress_callback = (lambda _: None) if quiet else None
        uploaded = execution.upload_execution_outputs(progress_callback=progress_callback, upload_workers=workers)
    except DerivaMLException as error:
        message = str(error)
    assets = [asset for table_assets in uploaded.values() for asset in table_assets]
    records -= _count_pending_records(ml, rid)
    remaining = [asset.filename for asset in execution.staged_assets()]
    return _build_result(rid, assets, remaining, message, records=records)


def _count_pending_records(ml: DerivaML, rid: str) -> int:
    """Return how many of the files that describe an execution are not uploaded."""
    from deriva_ml_core.execution.recorded import load_local_state

    state = load_local_state(ml.connection, rid)
    return sum(file.is_pending_record for file in state.pending_files()) if state is not None else 0


def _build_result(
    rid: str, uploaded: Any = (), remaining: Any = (), error: str = "", *, running: bool = False, records: int = 0
) -> dict[str, Any]:
    from deriva_ml_core.analysis.describe import asset_to_dict

    return {
        "rid": rid,
        "sent": [asset_to_dict(asset) for asset in uploaded],
        "records": records,
        "left": list(remaining),
        "error": error or None,
        "running": running,
    }


def _print(results: list[dict[str, Any]]) -> None:
    from deriva_ml_cli.terminal import Column, print_note, print_table, safe_text
    from deriva_ml_core._text import format_count, format_size

    if not results:
        print_note("Everything is uploaded.")
        return
    rows = []
    for result in results:
        size = sum(asset["length"] for asset in result["sent"])
        note = safe_text("still running, skipped; pass its RID to upload now", "yellow") if result["running"] else ""
        if result["error"]:
            note = safe_text(result["error"], "red")
        elif result["left"]:
            note = f"{format_count(len(result['left']), 'file')} missing: {', '.join(result['left'][:5])}"
        records = f" and {format_count(result['records'], 'record')}" if result["records"] else ""
        rows.append([result["rid"], format_count(len(result["sent"]), "file") + records, format_size(size), note])
    columns = Column("Execution", style="cyan"), Column("Uploaded"), Column("Size", align_right=True)
    print_table([*columns, Column("", flexible=True, wrapped=True)], rows)
