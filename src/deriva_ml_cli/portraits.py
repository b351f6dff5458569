"""Workflows, datasets, assets and plain rows on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from deriva_ml_cli.portrait import MOST, print_runs
from deriva_ml_cli.screen import Column, console, print_facts, print_note, print_table, print_title, shown
from deriva_ml_cli.wording import ago, counted, moment, size

__all__ = ["print_subject"]


def print_subject(found: Mapping[str, Any], *, full: bool) -> None:
    """Print what `subjects.describe` told of a workflow, a dataset, an asset or another row."""
    printers = {"workflow": _workflow, "dataset": _dataset, "asset": _asset, "row": _row}
    printers[found["kind"]](found, full)


def _heading(kind: str, rid: str, words: str, style: str = "bold") -> None:
    console().print(shown(kind, "dim"), shown(rid, "bold"))
    if words:
        console().print(shown(words, style))
    console().print()


def _time(value: str | datetime | None) -> str:
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{moment(time, seconds=True)} UTC ({ago(time)})" if time else ""


def _workflow(found: Mapping[str, Any], full: bool) -> None:
    _heading("Workflow", found["rid"], found["name"] or "")
    print_facts(
        {
            "type": found["type"],
            "description": found["description"],
            "code": found["url"],
            "checksum": found["checksum"],
            "version": found["version"],
            "created": _time(found["created"]),
        }
    )
    print_runs("Newest executions", found["newest_executions"], full=full)


def _dataset(found: Mapping[str, Any], full: bool) -> None:
    _heading("Dataset", found["rid"], found["description"])
    members = ", ".join(counted(count, element, element) for element, count in found["members"].items())
    print_facts(
        {
            "types": ", ".join(found["types"]),
            "version": found["version"],
            "members": members or "none",
            "lies in": ", ".join(found["parents"]),
            "created": _time(found["created"]),
            "deleted": "yes" if found["deleted"] else None,
        }
    )
    versions = list(reversed(found["versions"]))
    print_title("Versions", shown(counted(len(versions), "version"), "dim"))
    columns = [Column("Version"), Column("Created"), Column("By", style="cyan"), Column("Description", flexible=True)]
    rows = [
        (each["version"], ago(datetime.fromisoformat(each["created"])), each["execution"] or "", each["description"])
        for each in (versions if full else versions[:MOST])
    ]
    print_table(columns, rows, indent=2)
    if len(versions) > MOST and not full:
        print_note(f"  and {len(versions) - MOST:,} more: --full")
    print_runs("Newest executions that read it", found["newest_executions"], full=full)


def _asset(found: Mapping[str, Any], full: bool) -> None:
    _heading("Asset", found["rid"], found["filename"])
    print_facts(
        {
            "table": found["table"],
            "types": ", ".join(found["asset_types"]),
            "size": f"{size(found['length'])} ({found['length']:,} bytes)",
            "MD5": found["md5"],
            "url": found["url"],
            "stored in": found["source"],
            "created": _time(found["created"]),
            **found["metadata"],
        }
    )
    print_runs("Executions", found["executions"], full=full)


def _row(found: Mapping[str, Any], full: bool) -> None:  # noqa: ARG001
    _heading(f"Row of {found['table']}", found["rid"], "")
    print_facts({name: value for name, value in found["columns"].items() if name != "RID"})
