"""A sweep: one execution that the jobs' own are nested in, and that says at any time how many ran, failed and are left.

It is entered in the process that the command began, and lives as long as that. Jobs say how they stand by files in its
working folder, wherever a launcher of hydra's runs them; a thread beside the launcher reads them and tells the status.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import OmegaConf
from pydantic import JsonValue

from deriva_ml_core.definitions import MLAsset, Status
from deriva_ml_core.errors import DerivaMLException
from deriva_ml_core.execution import Execution
from deriva_ml_core.execution.ending import ending
from deriva_ml_core.redaction import redact
from deriva_ml_core.runner.hydra_files import choices, hydra_files, kept_yaml
from deriva_ml_core.runner.job import made_fields, refusing
from deriva_ml_core.runner.model import create_run
from deriva_ml_core.runner.plan import Plan
from deriva_ml_core.runner.reports import JobReport, Place, read_reports, summary

__all__ = ["JOBS_FILE", "Sweep", "recorded_sweep"]

log = logging.getLogger(__name__)

JOBS_FILE = "jobs.json"
"""What became of each job, kept with the sweep's execution."""

LOOK_SECONDS = 0.5
"""Seconds between two looks at the jobs' reports."""


NAMED = 3
"""How many of the jobs that failed the sweep's last status names; ``jobs.json`` names all."""

TERMINATED = 128 + signal.SIGTERM
"""The exit status by which a process leaves that SIGTERM ended."""


@dataclass(frozen=True)
class Sweep:
    """A sweep that runs, or has ended.

    Args:
        place: Where its jobs meet.
        jobs: How many there are to be; None where its sweeper decides that as it goes.
    """

    place: Place
    jobs: int | None

    @property
    def reports(self) -> list[JobReport]:
        """How those jobs stand that have begun."""
        return read_reports(self.place.folder)

    @property
    def summary(self) -> str:
        """How it stands, in numbers."""
        return summary(self.reports, self.jobs)

    @property
    def is_complete(self) -> bool:
        """Whether each job completed."""
        reports = self.reports
        return len(reports) >= (self.jobs or 0) and all(each.status is Status.completed for each in reports)

    @property
    def outcome(self) -> str:
        """How it stands, in numbers, and what the first jobs ended by that did not complete."""
        failed = [each for each in self.reports if each.status in (Status.failed, Status.aborted)]
        return ". ".join([self.summary, *(_why(report) for report in failed[:NAMED])])


@contextmanager
def recorded_sweep(plan: Plan) -> Iterator[Sweep]:
    """Make the execution of a sweep, and keep it up to date while the jobs run.

    Its workflow is that of the first job, and it takes in nothing. It ends Completed where each job did, else Failed;
    Aborted by Ctrl-C and SIGTERM.

    Args:
        plan: The sweep.

    Raises:
        Refused: The first job's configuration is wrong, or the execution cannot be created.
    """
    files = hydra_files(plan.config, plan.hydra)
    files = {"overrides.yaml": kept_yaml(list(plan.overrides)), "hydra.yaml": files["hydra.yaml"]}
    config = plan.config.copy()
    OmegaConf.resolve(config)
    fields = made_fields(config, plan.hydra)
    fields = replace(fields, values={**fields.values, "datasets": (), "assets": ()}, parameters=_parameters(plan))
    with refusing():
        ml = fields.connect()
    with ml:
        with refusing():
            configuration = fields.configuration(_description(fields.description, plan))
            parent = create_run(ml, configuration, files, dry_run=fields.dry_run)
        place = Place(
            parent=parent.execution_rid,
            catalog=ml.connection.catalog.name,
            folder=parent.working_dir / "jobs",
            over=tuple(each.partition("=")[0] for each in plan.swept),
        )
        place.folder.mkdir(exist_ok=True)
        sweep = Sweep(place, plan.jobs)
        try:
            with parent:
                yield from _accompanied(parent, sweep)
        finally:
            _keep_reports(parent, place.folder)


def _accompanied(parent: Execution, sweep: Sweep) -> Iterator[Sweep]:
    try:
        with _watched(parent, sweep):
            yield sweep
    except BaseException as error:
        status, reason = ending(error, terminated=isinstance(error, SystemExit) and error.code == TERMINATED)
        if isinstance(error, SystemExit) and isinstance(error.__context__, Exception):  # as hydra leaves by an error
            reason = str(error.__context__)
        parent.update_status(status, f"{sweep.summary}; {reason}")
        raise
    parent.update_status(Status.completed if sweep.is_complete else Status.failed, sweep.outcome)


@contextmanager
def _watched(parent: Execution, sweep: Sweep) -> Iterator[None]:
    """Tell, while this lasts, each time that a job begins or ends."""
    over = threading.Event()

    def watch() -> None:
        told = ""
        while not over.wait(LOOK_SECONDS):
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


def _keep_reports(parent: Execution, folder: Path) -> None:
    """Keep a list of what became of each job with the sweep's execution."""
    reports: list[JsonValue] = [report.model_dump(mode="json") for report in read_reports(folder)]
    try:
        file = parent.asset_file_path(MLAsset.execution_metadata, JOBS_FILE)
        file.write_text(json.dumps(redact(reports), indent=2) + "\n", encoding="utf-8")
        parent.upload_execution_outputs()
    except (DerivaMLException, OSError):
        log.warning("The list of jobs of sweep %s is not kept yet.", parent.execution_rid, exc_info=True)


def _description(text: str, plan: Plan) -> str:
    """What a sweep is for: what each of its jobs is for, and over what it goes."""
    jobs = "jobs" if plan.jobs is None else "one job" if plan.jobs == 1 else f"{plan.jobs} jobs"
    over = f" over {', '.join(map(str, redact([*plan.swept])))}" if plan.swept else ""  # type: ignore[arg-type]
    return " ".join(part for part in (text, f"(a sweep of {jobs}{over})") if part)


def _parameters(plan: Plan) -> dict[str, JsonValue]:
    return {
        "config_choices": dict(choices(plan.hydra)),
        "overrides": list(plan.overrides),
        "sweep": {"jobs": plan.jobs, "over": list(plan.swept)},
    }


def _why(report: JobReport) -> str:
    name = f"Job {report.number}" + (f", execution {report.execution}," if report.execution else "")
    return f"{name} {'failed' if report.status is Status.failed else 'was aborted'}: {report.error}"
