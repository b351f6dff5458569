"""What became of each job of a sweep: one small file a job, in the folder of the sweep's own execution."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue

from deriva_ml_core.definitions import RID, Status
from deriva_ml_core.models import FrozenModel

__all__ = ["JobReport", "SweepInfo", "read_report", "read_reports", "summarize_reports", "write_report"]


class SweepInfo(FrozenModel):
    """Where the jobs of a sweep meet.

    Args:
        parent: The sweep's own execution, which each job's is nested in.
        catalog: The name of the catalog that it is in.
        folder: Where each job's report lies.
        varied_keys: The keys, or groups, by which the jobs differ.
    """

    parent: RID
    catalog: str
    folder: Path
    varied_keys: tuple[str, ...] = ()


class JobReport(FrozenModel):
    """How a job stands.

    Args:
        number: Its place in the sweep, from 0.
        overrides: What tells it from the others, secrets redacted.
        execution: Its own execution; None before that is made.
        status: Its state.
        error: What it ended by, where it did not complete.
        returned: What the model function returned, where JSON has words for it.
    """

    number: int
    overrides: tuple[str, ...] = ()
    execution: RID | None = None
    status: Status = Status.pending
    error: str = ""
    returned: JsonValue = None


def write_report(folder: Path, report: JobReport) -> None:
    """Write a job's report in one piece."""
    folder.mkdir(parents=True, exist_ok=True)
    file = _report_path(folder, report.number)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(report.model_dump_json(), encoding="utf-8")
    partial.replace(file)


def read_report(folder: Path, number: int) -> JobReport:
    """The report of one job that has begun."""
    return JobReport.model_validate_json(_report_path(folder, number).read_bytes())


def read_reports(folder: Path) -> list[JobReport]:
    """The reports of the jobs that have begun, in their order."""
    files = sorted(folder.glob("[0-9]*.json"))
    return [JobReport.model_validate_json(file.read_bytes()) for file in files]


def _report_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"


def summarize_reports(reports: Sequence[JobReport], job_count: int | None) -> str:
    """How a sweep stands, such as ``2 of 4 jobs have ended: 1 completed, 1 failed; 1 is running, 1 is left``.

    Args:
        reports: Of the jobs that have begun.
        job_count: How many there are in all; None where the sweeper decides that as it goes.
    """
    states = Counter(report.status for report in reports)
    ended = {status: states[status] for status in (Status.completed, Status.failed, Status.aborted) if states[status]}
    done = sum(ended.values())
    jobs_in_all = str(done) if job_count is None else f"{done} of {job_count}"
    parts = [f"{jobs_in_all} jobs have ended"]
    if ended:
        parts[0] += ": " + ", ".join(f"{count} {status.lower()}" for status, count in ended.items())
    running = len(reports) - done
    left = max(job_count - len(reports), 0) if job_count is not None else 0
    others = {"running": running, "left": left}
    rest = [f"{count} {'is' if count == 1 else 'are'} {what}" for what, count in others.items() if count]
    return "; ".join([*parts, ", ".join(rest)] if rest else parts)
