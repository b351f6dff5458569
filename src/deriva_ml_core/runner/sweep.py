"""Record a sweep as an execution that contains the executions of its jobs, and whose status counts them.

The sweep's execution runs in the process of the command. Each job writes a report file to its working folder, whichever
process Hydra's launcher uses. A background thread reads the reports and updates the status of the sweep.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import OmegaConf
from pydantic import JsonValue

from deriva_ml_core._files.atomic import write_atomic
from deriva_ml_core.definitions import RID, MLAsset, Status
from deriva_ml_core.errors import DerivaMLException
from deriva_ml_core.execution import Execution
from deriva_ml_core.execution.exit_status import final_status
from deriva_ml_core.models import FrozenModel
from deriva_ml_core.redaction import redact
from deriva_ml_core.runner.hydra_files import config_choices, dump_redacted_yaml, render_hydra_files
from deriva_ml_core.runner.job import instantiate_arguments, translate_errors
from deriva_ml_core.runner.model_run import create_execution
from deriva_ml_core.runner.plan import Plan

__all__ = [
    "JOBS_FILE",
    "JobReport",
    "Sweep",
    "SweepInfo",
    "read_report",
    "read_reports",
    "record_sweep",
    "summarize_reports",
    "write_report",
]

log = logging.getLogger(__name__)


class SweepInfo(FrozenModel):
    """What a job needs to know about its sweep.

    Args:
        parent: The RID of the sweep's execution, which contains the executions of the jobs.
        catalog: The name of the catalog of that execution.
        folder: The folder of the job reports.
        varied_keys: The keys and groups that differ between jobs.
    """

    parent: RID
    catalog: str
    folder: Path
    varied_keys: tuple[str, ...] = ()


class JobReport(FrozenModel):
    """The state of a job.

    Args:
        number: The index of the job in the sweep, from 0.
        overrides: The overrides that distinguish the job from the others, with secrets redacted.
        execution: The RID of the job's execution; None before it is created.
        status: The status of the job.
        error: Why the job did not complete; empty otherwise.
        returned: The return value of the model function, as far as JSON can represent it.
    """

    number: int
    overrides: tuple[str, ...] = ()
    execution: RID | None = None
    status: Status = Status.pending
    error: str = ""
    returned: JsonValue = None


def write_report(folder: Path, report: JobReport) -> None:
    """Write a job's report atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(_report_path(folder, report.number), report.model_dump_json())


def read_report(folder: Path, number: int) -> JobReport:
    """Read the report of a job that has started."""
    return JobReport.model_validate_json(_report_path(folder, number).read_bytes())


def read_reports(folder: Path) -> list[JobReport]:
    """Read the reports of all jobs that have started, in the order of their numbers."""
    files = sorted(folder.glob("[0-9]*.json"))
    return [JobReport.model_validate_json(file.read_bytes()) for file in files]


def _report_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"


def summarize_reports(reports: Sequence[JobReport], job_count: int | None) -> str:
    """Return the state of a sweep as text: ``2 of 4 jobs ended: 1 completed, 1 failed; 1 running, 1 pending``.

    Args:
        reports: The reports of the jobs that have started.
        job_count: The number of jobs in the sweep; None if its sweeper decides that while it runs.
    """
    states = Counter(report.status for report in reports)
    ended = {status: states[status] for status in (Status.completed, Status.failed, Status.aborted) if states[status]}
    ended_count = sum(ended.values())
    summary = f"{ended_count} jobs ended" if job_count is None else f"{ended_count} of {job_count} jobs ended"
    if ended:
        summary += ": " + ", ".join(f"{count} {status.lower()}" for status, count in ended.items())
    running = len(reports) - ended_count
    pending = max(job_count - len(reports), 0) if job_count is not None else 0
    rest = [f"{count} {state}" for state, count in (("running", running), ("pending", pending)) if count]
    return f"{summary}; {', '.join(rest)}" if rest else summary


JOBS_FILE = "jobs.json"
"""File with the reports of all jobs, uploaded with the sweep's execution."""

POLL_INTERVAL = 0.5
"""Seconds between two reads of the job reports."""

MAX_LISTED_FAILURES = 3
"""How many failed jobs the final status of a sweep names; ``jobs.json`` lists all of them."""

EXIT_TERMINATED = 128 + signal.SIGTERM
"""Exit status of a process that SIGTERM ended."""


@dataclass(frozen=True)
class Sweep:
    """A running or finished sweep.

    Args:
        info: What its jobs need to know about it.
        job_count: The number of jobs; None if its sweeper decides that while it runs.
    """

    info: SweepInfo
    job_count: int | None

    @property
    def reports(self) -> list[JobReport]:
        """The reports of the jobs that have started."""
        return read_reports(self.info.folder)

    @property
    def summary(self) -> str:
        """The state of the sweep as text."""
        return summarize_reports(self.reports, self.job_count)

    @property
    def is_complete(self) -> bool:
        """Whether all jobs completed."""
        reports = self.reports
        return len(reports) >= (self.job_count or 0) and all(report.status is Status.completed for report in reports)

    @property
    def outcome(self) -> str:
        """The state of the sweep as text, and the errors of the first jobs that did not complete."""
        failed = [report for report in self.reports if report.status in (Status.failed, Status.aborted)]
        return ". ".join([self.summary, *(_describe_failure(report) for report in failed[:MAX_LISTED_FAILURES])])


@contextmanager
def record_sweep(plan: Plan) -> Iterator[Sweep]:
    """Create the execution of a sweep, and update its status while the jobs run.

    The execution has the workflow of the first job and no inputs. It ends as Completed if all jobs completed, as
    Aborted after Ctrl-C or SIGTERM, and otherwise as Failed. After the ``with``, the sweep has no reports.

    Args:
        plan: The plan of the sweep.

    Yields:
        The sweep.

    Raises:
        JobError: The configuration of the first job is invalid, or the execution cannot be created.
    """
    files = render_hydra_files(plan.config, plan.hydra)
    files = {"overrides.yaml": dump_redacted_yaml(list(plan.overrides)), "hydra.yaml": files["hydra.yaml"]}
    config = plan.config.copy()
    OmegaConf.resolve(config)
    first = instantiate_arguments(config, plan.hydra)
    arguments = replace(
        first, values={**first.values, "datasets": (), "assets": ()}, parameters=_sweep_parameters(plan)
    )
    with translate_errors():
        ml = arguments.connect()
    with ml:
        with translate_errors():
            configuration = arguments.build_configuration(_format_description(arguments.description, plan))
            parent = create_execution(ml, configuration, files, dry_run=arguments.dry_run)
        info = SweepInfo(
            parent=parent.execution_rid,
            catalog=ml.connection.catalog.name,
            folder=parent.working_dir / "jobs",
            varied_keys=tuple(override.partition("=")[0] for override in plan.sweep_overrides),
        )
        info.folder.mkdir(exist_ok=True)
        sweep = Sweep(info, plan.job_count)
        with parent._upload_before_last_line():
            try:
                with parent:
                    yield from _track_status(parent, sweep)
            finally:
                _upload_reports(parent, info.folder)


def _track_status(parent: Execution, sweep: Sweep) -> Iterator[Sweep]:
    try:
        with _poll_reports(parent, sweep):
            yield sweep
    except BaseException as error:
        status, reason = final_status(error, terminated=isinstance(error, SystemExit) and error.code == EXIT_TERMINATED)
        if isinstance(error, SystemExit) and isinstance(error.__context__, Exception):  # Hydra exits this way on errors
            reason = str(error.__context__)
        parent.update_status(status, f"{sweep.summary}; {reason}")
        raise
    parent.update_status(Status.completed if sweep.is_complete else Status.failed, sweep.outcome)


@contextmanager
def _poll_reports(parent: Execution, sweep: Sweep) -> Iterator[None]:
    """Update the status of a sweep in the background whenever a job starts or ends.

    If the system refuses to start the thread, only the end of the sweep updates the status.
    """
    stop = threading.Event()

    def poll() -> None:
        reported = ""
        while not stop.wait(POLL_INTERVAL):
            summary = sweep.summary
            if summary != reported:
                parent.update_status(Status.running, summary, wait=False)
                reported = summary

    thread = threading.Thread(target=poll, name="deriva-ml-sweep", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # a container's limit is reached, or the process is exiting
        log.warning("The status of sweep %s is not updated before its end: %s", parent.execution_rid, error)
        yield
        return
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _upload_reports(parent: Execution, folder: Path) -> None:
    """Upload the reports of all jobs with the sweep's execution, and delete the reports if all jobs have ended."""
    reports = read_reports(folder)
    values: list[JsonValue] = [report.model_dump(mode="json") for report in reports]
    try:
        file = parent.asset_file_path(MLAsset.execution_metadata, JOBS_FILE)
        file.write_text(json.dumps(redact(values), indent=2) + "\n", encoding="utf-8")
        parent.upload_execution_outputs()
    except (DerivaMLException, OSError):
        log.warning("%s of sweep %s was not uploaded.", JOBS_FILE, parent.execution_rid, exc_info=True)
        return
    if all(report.status.is_terminal for report in reports):
        shutil.rmtree(folder, ignore_errors=True)


def _format_description(text: str, plan: Plan) -> str:
    """Return the description of a sweep: that of its jobs, their number, and the swept overrides."""
    jobs = "jobs" if plan.job_count is None else "one job" if plan.job_count == 1 else f"{plan.job_count} jobs"
    over = f" over {', '.join(map(str, redact([*plan.sweep_overrides])))}" if plan.sweep_overrides else ""  # type: ignore[arg-type]
    return " ".join(part for part in (text, f"(a sweep of {jobs}{over})") if part)


def _sweep_parameters(plan: Plan) -> dict[str, JsonValue]:
    return {
        "config_choices": dict(config_choices(plan.hydra)),
        "overrides": list(plan.overrides),
        "sweep": {"jobs": plan.job_count, "over": list(plan.sweep_overrides)},
    }


def _describe_failure(report: JobReport) -> str:
    name = f"Job {report.number}" + (f" (execution {report.execution})" if report.execution else "")
    return f"{name} {'failed' if report.status is Status.failed else 'was aborted'}: {report.error}"
