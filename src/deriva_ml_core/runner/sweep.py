"""A sweep: one execution that the jobs' own are nested in, and that says at any time how many ran, failed and are left.

It is entered in the process that the command began, and lives as long as that. Jobs say how they stand by files in its
working folder, wherever a launcher of hydra's runs them; a thread beside the launcher reads them and tells the status.
"""

from __future__ import annotations

import json
import logging
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
from deriva_ml_core.runner.plan import Plan
from deriva_ml_core.runner.run_model import create_execution

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
    write_atomic(_report_path(folder, report.number), report.model_dump_json())


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


JOBS_FILE = "jobs.json"
"""What became of each job, kept with the sweep's execution."""

POLL_INTERVAL = 0.5
"""Seconds between two looks at the jobs' reports."""


MAX_LISTED_FAILURES = 3
"""How many of the jobs that failed the sweep's last status names; ``jobs.json`` names all."""

EXIT_TERMINATED = 128 + signal.SIGTERM
"""The exit status by which a process leaves that SIGTERM ended."""


@dataclass(frozen=True)
class Sweep:
    """A sweep that runs, or has ended.

    Args:
        info: Where its jobs meet.
        job_count: How many there are to be; None where its sweeper decides that as it goes.
    """

    info: SweepInfo
    job_count: int | None

    @property
    def reports(self) -> list[JobReport]:
        """How those jobs stand that have begun."""
        return read_reports(self.info.folder)

    @property
    def summary(self) -> str:
        """How it stands, in numbers."""
        return summarize_reports(self.reports, self.job_count)

    @property
    def is_complete(self) -> bool:
        """Whether each job completed."""
        reports = self.reports
        return len(reports) >= (self.job_count or 0) and all(each.status is Status.completed for each in reports)

    @property
    def outcome(self) -> str:
        """How it stands, in numbers, and what the first jobs ended by that did not complete."""
        failed = [each for each in self.reports if each.status in (Status.failed, Status.aborted)]
        return ". ".join([self.summary, *(_describe_failure(report) for report in failed[:MAX_LISTED_FAILURES])])


@contextmanager
def record_sweep(plan: Plan) -> Iterator[Sweep]:
    """Make the execution of a sweep, and keep it up to date while the jobs run.

    Its workflow is that of the first job, and it takes in nothing. It ends Completed where each job did, else Failed;
    Aborted by Ctrl-C and SIGTERM.

    Args:
        plan: The sweep.

    Raises:
        Refused: The first job's configuration is wrong, or the execution cannot be created.
    """
    files = render_hydra_files(plan.config, plan.hydra)
    files = {"overrides.yaml": dump_redacted_yaml(list(plan.overrides)), "hydra.yaml": files["hydra.yaml"]}
    config = plan.config.copy()
    OmegaConf.resolve(config)
    fields = instantiate_arguments(config, plan.hydra)
    fields = replace(fields, values={**fields.values, "datasets": (), "assets": ()}, parameters=_sweep_parameters(plan))
    with translate_errors():
        ml = fields.connect()
    with ml:
        with translate_errors():
            configuration = fields.build_configuration(_format_description(fields.description, plan))
            parent = create_execution(ml, configuration, files, dry_run=fields.dry_run)
        place = SweepInfo(
            parent=parent.execution_rid,
            catalog=ml.connection.catalog.name,
            folder=parent.working_dir / "jobs",
            varied_keys=tuple(each.partition("=")[0] for each in plan.sweep_overrides),
        )
        place.folder.mkdir(exist_ok=True)
        sweep = Sweep(place, plan.job_count)
        try:
            with parent:
                yield from _track_status(parent, sweep)
        finally:
            _upload_reports(parent, place.folder)


def _track_status(parent: Execution, sweep: Sweep) -> Iterator[Sweep]:
    try:
        with _poll_reports(parent, sweep):
            yield sweep
    except BaseException as error:
        status, reason = final_status(error, terminated=isinstance(error, SystemExit) and error.code == EXIT_TERMINATED)
        if isinstance(error, SystemExit) and isinstance(error.__context__, Exception):  # as hydra leaves by an error
            reason = str(error.__context__)
        parent.update_status(status, f"{sweep.summary}; {reason}")
        raise
    parent.update_status(Status.completed if sweep.is_complete else Status.failed, sweep.outcome)


@contextmanager
def _poll_reports(parent: Execution, sweep: Sweep) -> Iterator[None]:
    """Tell, while this lasts, each time that a job begins or ends."""
    over = threading.Event()

    def watch() -> None:
        told = ""
        while not over.wait(POLL_INTERVAL):
            text = sweep.summary
            if text != told:
                parent.update_status(Status.running, text, wait=False)
                told = text

    watcher = threading.Thread(target=watch, name="deriva-ml-sweep", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _upload_reports(parent: Execution, folder: Path) -> None:
    """Keep a list of what became of each job with the sweep's execution."""
    reports: list[JsonValue] = [report.model_dump(mode="json") for report in read_reports(folder)]
    try:
        file = parent.asset_file_path(MLAsset.execution_metadata, JOBS_FILE)
        file.write_text(json.dumps(redact(reports), indent=2) + "\n", encoding="utf-8")
        parent.upload_execution_outputs()
    except (DerivaMLException, OSError):
        log.warning("The list of jobs of sweep %s is not kept yet.", parent.execution_rid, exc_info=True)


def _format_description(text: str, plan: Plan) -> str:
    """What a sweep is for: what each of its jobs is for, and over what it goes."""
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
    name = f"Job {report.number}" + (f", execution {report.execution}," if report.execution else "")
    return f"{name} {'failed' if report.status is Status.failed else 'was aborted'}: {report.error}"
