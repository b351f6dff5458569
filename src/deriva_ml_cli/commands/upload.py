"""``deriva-ml upload``: what is staged and was never sent."""

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
        str | None, typer.Argument(metavar="RID", help="An execution; without one, all that are here.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            help="Files on their way at once.",
            show_default="up to 4 to a server, 1 to an embedded catalog",
        ),
    ] = None,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Send what was registered and not yet sent.

    A run whose process died is written as Aborted on the way. Without a record id, executions that still run are left
    alone. Nothing is ever sent twice.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    with open_client(host, catalog) as ml:
        sent = _upload_executions(ml, rid, workers, quiet=as_json)
    if as_json:
        print_json({"executions": sent})
    else:
        _print(sent)
    if any(each["error"] for each in sent):
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
    from deriva_ml_core.errors import DerivaMLException

    execution = ml.restore_execution(rid)
    error, sent = "", {}
    try:
        tell = (lambda _: None) if quiet else None
        sent = execution.upload_execution_outputs(progress_callback=tell, upload_workers=workers)
    except DerivaMLException as reason:
        error = str(reason)
    files = [asset for assets in sent.values() for asset in assets]
    return _build_result(rid, files, [asset.filename for asset in execution.staged_assets()], error)


def _build_result(
    rid: str, uploaded: Any = (), remaining: Any = (), error: str = "", *, running: bool = False
) -> dict[str, Any]:
    from deriva_ml_core.analysis.describe import asset_to_dict

    sent = [asset_to_dict(asset) for asset in uploaded]
    return {"rid": rid, "sent": sent, "left": list(remaining), "error": error or None, "running": running}


def _print(results: list[dict[str, Any]]) -> None:
    from deriva_ml_cli.terminal import Column, print_note, print_table, safe_text
    from deriva_ml_core._text import format_count, format_size

    if not results:
        print_note("Everything is sent.")
        return
    rows = []
    for each in results:
        bytes_sent = sum(asset["length"] for asset in each["sent"])
        said = safe_text("still running, left alone; name it to send it now", "yellow") if each["running"] else ""
        if each["error"]:
            said = safe_text(each["error"], "red")
        elif each["left"]:
            said = f"{format_count(len(each['left']), 'file')} not there: {', '.join(each['left'][:5])}"
        rows.append([each["rid"], format_count(len(each["sent"]), "file"), format_size(bytes_sent), said])
    titles = Column("Execution", style="cyan"), Column("Sent"), Column("Size", align_right=True)
    print_table([*titles, Column("", flexible=True, wrapped=True)], rows)
