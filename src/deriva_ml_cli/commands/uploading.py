"""``deriva-ml upload``: what is staged and was never sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deriva_ml_cli.options import AsJson, CatalogNumber, Host, command

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
    from deriva_ml_cli.opening import opened
    from deriva_ml_cli.screen import print_json

    with opened(host, catalog) as ml:
        sent = _sent(ml, rid, workers, quiet=as_json)
    if as_json:
        print_json({"executions": sent})
    else:
        _print(sent)
    if any(each["error"] for each in sent):
        raise typer.Exit(1)


def _sent(ml: DerivaML, rid: str | None, workers: int | None, *, quiet: bool) -> list[dict[str, Any]]:
    from deriva_ml_cli.unsent import with_unsent

    if rid is not None:
        ml.lookup_execution(rid)
        return [_send(ml, rid, workers, quiet=quiet)]
    return [
        _answer(each.rid, error="", running=True) if each.may_run else _send(ml, each.rid, workers, quiet=quiet)
        for each in with_unsent(ml)
    ]


def _send(ml: DerivaML, rid: str, workers: int | None, *, quiet: bool) -> dict[str, Any]:
    from deriva_ml_core.errors import DerivaMLException

    execution = ml.restore_execution(rid)
    error, sent = "", {}
    try:
        tell = (lambda _: None) if quiet else None
        sent = execution.upload_execution_outputs(progress_callback=tell, upload_workers=workers)
    except DerivaMLException as reason:
        error = str(reason)
    files = [asset for assets in sent.values() for asset in assets]
    return _answer(rid, files, [asset.filename for asset in execution.staged_assets()], error)


def _answer(rid: str, files: Any = (), left: Any = (), error: str = "", *, running: bool = False) -> dict[str, Any]:
    from deriva_ml_cli.subjects import asset_as_json

    sent = [asset_as_json(asset) for asset in files]
    return {"rid": rid, "sent": sent, "left": list(left), "error": error or None, "running": running}


def _print(sent: list[dict[str, Any]]) -> None:
    from deriva_ml_cli.screen import Column, print_note, print_table, shown
    from deriva_ml_cli.wording import counted, size

    if not sent:
        print_note("Everything is sent.")
        return
    rows = []
    for each in sent:
        bytes_sent = sum(asset["length"] for asset in each["sent"])
        said = shown("still running, left alone; name it to send it now", "yellow") if each["running"] else ""
        if each["error"]:
            said = shown(each["error"], "red")
        elif each["left"]:
            said = f"{counted(len(each['left']), 'file')} not there: {', '.join(each['left'][:5])}"
        rows.append([each["rid"], counted(len(each["sent"]), "file"), size(bytes_sent), said])
    titles = Column("Execution", style="cyan"), Column("Sent"), Column("Size", right=True)
    print_table([*titles, Column("", flexible=True, folded=True)], rows)
