"""Workflows, datasets, assets and plain rows on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from deriva_ml_cli.portrait import MAX_ROWS, print_execution_list
from deriva_ml_cli.screen import Column, create_console, print_fields, print_note, print_table, print_title, safe_text
from deriva_ml_cli.wording import format_age, format_count, format_size, format_time

__all__ = ["print_record"]


def print_record(record: Mapping[str, Any], *, full: bool) -> None:
    """Print what `subjects.describe` told of a workflow, a dataset, an asset or another row."""
    printers = {"workflow": _print_workflow, "dataset": _print_dataset, "asset": _print_asset, "row": _print_row}
    printers[record["kind"]](record, full)


def _print_heading(kind: str, rid: str, subtitle: str, style: str = "bold") -> None:
    create_console().print(safe_text(kind, "dim"), safe_text(rid, "bold"))
    if subtitle:
        create_console().print(safe_text(subtitle, style))
    create_console().print()


def _format_timestamp(value: str | datetime | None) -> str:
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{format_time(time, show_seconds=True)} UTC ({format_age(time)})" if time else ""


def _print_workflow(record: Mapping[str, Any], full: bool) -> None:
    _print_heading("Workflow", record["rid"], record["name"] or "")
    print_fields(
        {
            "type": record["type"],
            "description": record["description"],
            "code": record["url"],
            "checksum": record["checksum"],
            "version": record["version"],
            "created": _format_timestamp(record["created"]),
        }
    )
    print_execution_list("Newest executions", record["newest_executions"], full=full)


def _print_dataset(record: Mapping[str, Any], full: bool) -> None:
    _print_heading("Dataset", record["rid"], record["description"])
    members = ", ".join(format_count(count, element, element) for element, count in record["members"].items())
    print_fields(
        {
            "types": ", ".join(record["types"]),
            "version": record["version"],
            "members": members or "none",
            "lies in": ", ".join(record["parents"]),
            "created": _format_timestamp(record["created"]),
            "deleted": "yes" if record["deleted"] else None,
        }
    )
    versions = list(reversed(record["versions"]))
    print_title("Versions", safe_text(format_count(len(versions), "version"), "dim"))
    columns = [Column("Version"), Column("Created"), Column("By", style="cyan"), Column("Description", flexible=True)]
    rows = [
        (
            each["version"],
            format_age(datetime.fromisoformat(each["created"])),
            each["execution"] or "",
            each["description"],
        )
        for each in (versions if full else versions[:MAX_ROWS])
    ]
    print_table(columns, rows, indent=2)
    if len(versions) > MAX_ROWS and not full:
        print_note(f"  and {len(versions) - MAX_ROWS:,} more: --full")
    print_execution_list("Newest executions that read it", record["newest_executions"], full=full)


def _print_asset(record: Mapping[str, Any], full: bool) -> None:
    _print_heading("Asset", record["rid"], record["filename"])
    print_fields(
        {
            "table": record["table"],
            "types": ", ".join(record["asset_types"]),
            "size": f"{format_size(record['length'])} ({record['length']:,} bytes)",
            "MD5": record["md5"],
            "url": record["url"],
            "stored in": record["source"],
            "created": _format_timestamp(record["created"]),
            **record["metadata"],
        }
    )
    print_execution_list("Executions", record["executions"], full=full)


def _print_row(record: Mapping[str, Any], full: bool) -> None:
    _print_heading(f"Row of {record['table']}", record["rid"], "")
    print_fields({name: value for name, value in record["columns"].items() if name != "RID"})
