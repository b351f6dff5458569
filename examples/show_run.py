"""Print the record of an execution and verify its files."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.progress import track
from rich.table import Table

from deriva_ml import DerivaML
from deriva_ml_core import Asset, RecordedExecution


def arguments(description: str) -> tuple[DerivaML, int]:
    """Parse the command line.

    Returns:
        A client for the catalog, and the number of epochs.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--home", type=Path, help="folder of the catalog (default: DERIVA_ML_HOME)")
    parser.add_argument("--epochs", type=int, default=5, help="number of epochs (default: 5)")
    options = parser.parse_args()
    return DerivaML(f"file:{options.home.absolute()}") if options.home else DerivaML(), options.epochs


def show_run(ml: DerivaML, rid: str) -> None:
    """Print the record of an execution, and verify the files that it read or wrote."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    run = ml.lookup_execution(rid)
    console.rule(f"[bold]Execution {rid}: {run.status}")
    for part in (summary(ml, run), timeline(run), outputs(run)):
        console.print(part, "")
    verify(ml, run, console)


def summary(ml: DerivaML, run: RecordedExecution) -> Table:
    """Return a table with the execution, its workflow, inputs and timings."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("Description", run.description)
    table.add_row("Citation", run.url)
    if run.workflow_rid:
        workflow = ml.lookup_workflow(run.workflow_rid)
        table.add_row("Workflow", f"{run.workflow_rid} {workflow.name} ({workflow.workflow_type})")
        table.add_row("", workflow.url)
        table.add_row("", f"checksum {workflow.checksum}, version {workflow.version or 'none'}")
    for spec in run.list_input_datasets():
        table.add_row("Input dataset", f"{spec.rid} version {spec.version}: {ml.lookup_dataset(spec.rid).description}")
    for producer in producers(ml, run):
        table.add_row("", f"created by execution {producer.execution_rid} on {format_time(producer.start_time)}")
    for asset in run.list_assets("Input"):
        table.add_row("Input asset", f"{asset.rid} {asset.table}/{asset.filename}")
    table.add_row("Created", format_time(run.created))
    table.add_row("Started", format_time(run.start_time))
    seconds = (run.stop_time - run.start_time).total_seconds() if run.start_time and run.stop_time else None
    table.add_row("Stopped", format_time(run.stop_time) + (f" ({seconds:.1f} s)" if seconds is not None else ""))
    return table


def timeline(run: RecordedExecution) -> Table:
    """Return a table with the statuses of the execution."""
    table = Table("time (UTC)", "status", "message", title="Timeline", title_justify="left")
    for update in run.list_statuses():
        table.add_row(f"{update.time:%H:%M:%S.%f}"[:-3], update.status, update.error or update.message)
    return table


def outputs(run: RecordedExecution) -> Table:
    """Return a table with the output files of the execution."""
    table = Table(title="Outputs", title_justify="left")
    table.add_column("file", overflow="fold")
    table.add_column("types", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("MD5", no_wrap=True)
    for asset in run.list_assets("Output"):
        types = ", ".join(asset.asset_types)
        table.add_row(f"{asset.table}/{asset.filename}", types, decimal(asset.length), asset.md5)
    return table


def verify(ml: DerivaML, run: RecordedExecution, console: Console) -> None:
    """Verify the stored files of the execution and of those that created its input datasets."""
    runs = (run, *producers(ml, run))
    assets: dict[str, Asset] = {asset.rid: asset for each in runs for asset in each.list_assets()}
    for asset in track(assets.values(), "Verifying", console=console, transient=True):
        ml.verify_asset(asset)
    size = decimal(sum(asset.length for asset in assets.values()))
    console.print(f"[green]Verified {len(assets):,} stored files, {size}: all match the record.")


def producers(ml: DerivaML, run: RecordedExecution) -> list[RecordedExecution]:
    """Return the executions that created the input dataset versions."""
    versions = {(spec.rid, spec.version) for spec in run.list_input_datasets()}
    history = [version for rid, _ in versions for version in ml.lookup_dataset(rid).dataset_history()]
    rids = {each.execution for each in history if each.execution and (each.dataset, each.version) in versions}
    return [ml.lookup_execution(rid) for rid in sorted(rids)]


def format_time(time: datetime | None) -> str:
    """Format a time in UTC."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC" if time else "unknown"
