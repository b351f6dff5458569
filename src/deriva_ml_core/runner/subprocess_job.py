"""A job of a sweep in a process of its own, so that one that is killed, or that leaves a mess, is alone in that.

The process that a launcher of hydra's runs a job in starts this module as a program, and hands it the job over its
standard input. What the job leaves behind in memory, and the order of random numbers, is that of a run by itself, and
so is its command line: that is what its execution keeps, and what does it again.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypedDict, Unpack

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import JsonValue

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import DRY_RUN_RID, RID, Status
from deriva_ml_core.errors import ConfigurationError, DerivaMLException, DerivaMLWarning
from deriva_ml_core.execution import Execution
from deriva_ml_core.execution.nested import nest_execution
from deriva_ml_core.runner.job import JobContext, JobError, run_job
from deriva_ml_core.runner.sweep import JobReport, SweepInfo, read_report, write_report
from deriva_ml_core.user_warnings import warn

__all__ = ["SubprocessJob", "install_warning_format", "main", "run_in_subprocess"]


EXIT_INTERRUPTED = 130
"""The exit status by which a process leaves that Ctrl-C ended."""

INTERNAL_MODULES = ("__main__", "runpy", "deriva_ml_core", "hydra", "hydra_zen", "functools")
"""Whose frames lie between this program's start and a model function."""


class JobReportUpdate(TypedDict, total=False):
    """What changes in a job's report."""

    execution: RID
    status: Status
    error: str
    returned: JsonValue


@dataclass(frozen=True)
class SubprocessJob:
    """A job as it is handed over.

    Args:
        number: Its place in the sweep.
        overrides: What tells it from the others.
        command: The command line that does it by itself.
        config: Its configuration as plain values, each interpolation resolved.
        hydra: The node ``hydra`` beside it, likewise.
        files: The texts of hydra's files.
        sys_path: Where to import from.
        sweep: Where the jobs of the sweep meet.
    """

    number: int
    overrides: tuple[str, ...]
    command: tuple[str, ...]
    config: Any
    hydra: Any
    files: Mapping[str, str]
    sys_path: tuple[str, ...]
    sweep: SweepInfo

    @classmethod
    def from_hydra(
        cls,
        config: DictConfig,
        hydra: DictConfig,
        *,
        files: Mapping[str, str],
        command: tuple[str, ...],
        sweep: SweepInfo,
    ) -> SubprocessJob:
        """The job that hydra runs now."""
        return cls(
            number=hydra.job.num,
            overrides=tuple(OmegaConf.to_container(hydra.overrides.task)),  # type: ignore[arg-type]
            command=command,
            config=OmegaConf.to_container(config, resolve=True),
            hydra=_resolve_hydra_config(hydra),
            files=files,
            sys_path=tuple(sys.path),
            sweep=sweep,
        )


def run_in_subprocess(job: SubprocessJob) -> JobReport:
    """Run a job in a process of its own, and wait for that.

    Args:
        job: The job.

    Returns:
        What became of it.
    """
    folder = job.sweep.folder
    write_report(folder, JobReport(number=job.number, overrides=_redacted_overrides(job)))
    # safely: beside the terminal's folder may lie a queue.py; the last words are for who reads a list of processes
    words = [sys.executable, "-P", "-m", __name__, *job.command[1:]]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as process:  # noqa: S603 - this module, by this interpreter
        try:
            process.communicate(pickle.dumps(asdict(job)))
        except BaseException:
            process.terminate()  # Ctrl-C or SIGTERM came to this process, perhaps to no other
            process.wait()
            raise
        finally:
            report = _finalize_report(read_report(folder, job.number), process.returncode)
            write_report(folder, report)
    return report


def _redacted_overrides(job: SubprocessJob) -> tuple[str, ...]:
    """A job's overrides as others may read them."""
    from deriva_ml_core.redaction import redact

    shown = redact([*job.overrides])
    return tuple(map(str, shown)) if isinstance(shown, list) else ()


def _finalize_report(report: JobReport, returncode: int) -> JobReport:
    """A job's report, also where its process ended without a word."""
    if report.status.is_terminal:
        return report
    words = f"was ended by {signal.Signals(-returncode).name}" if returncode < 0 else f"ended with code {returncode}"
    return report.model_copy(update={"status": Status.aborted, "error": f"Its process {words}"})


def _resolve_hydra_config(hydra: DictConfig) -> Any:
    try:
        return OmegaConf.to_container(hydra, resolve=True)
    except OmegaConfBaseException:  # in a part that only other jobs use: a launcher's own settings, say
        return OmegaConf.to_container(hydra, resolve=False)


def main() -> int:
    """Run the job that standard input holds.

    Returns:
        0 where it completed, 130 where Ctrl-C ended it, else 1.
    """
    parts = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by the process that started this one
    job = SubprocessJob(**{**parts, "sweep": SweepInfo.model_validate(parts["sweep"])})
    sys.path[:] = job.sys_path
    install_warning_format()
    sys.argv[:] = job.command  # what does this job again, and what a framework begins its other ranks by
    sys.orig_argv[:] = [sys.executable, *job.command]
    try:
        returned = _run_configured_job(job)
    except BaseException as error:
        update_report(job, **_failure_update(error))
        if isinstance(error, KeyboardInterrupt):
            return EXIT_INTERRUPTED  # the trace to where it came says nothing
        if not isinstance(error, Exception):
            raise
        sys.stderr.write(
            f"error: job {job.number}: {error}\n" if isinstance(error, JobError) else _format_traceback(error)
        )
        return 1
    update_report(job, status=Status.completed, returned=_return_value_to_json(returned))
    return 0


def _format_traceback(error: Exception) -> str:
    """An error's traceback, without the way to the model function."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] in INTERNAL_MODULES:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace or error.__traceback__))


def _failure_update(error: BaseException) -> JobReportUpdate:
    from deriva_ml_core.execution.exit_status import final_status
    from deriva_ml_core.redaction import redact_text

    if isinstance(error, JobError):
        return {"status": Status.failed, "error": redact_text(str(error))}
    status, reason = final_status(
        error, terminated=isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM
    )
    return {"status": status, "error": redact_text(reason)}


def _run_configured_job(job: SubprocessJob) -> Any:
    config, hydra = _set_up_hydra(job)
    return run_job(config, hydra, job.files, SweepJobContext(job))


class SweepJobContext(JobContext):
    """A job that belongs to a sweep: its execution is nested in the sweep's, and a report says how it stands.

    Args:
        job: The job.
    """

    def __init__(self, job: SubprocessJob) -> None:
        self._job = job

    def check_catalog(self, ml: DerivaML) -> None:
        sweep = self._job.sweep.catalog
        if ml.connection.catalog.name != sweep:
            raise ConfigurationError(
                f"This job goes to {ml.connection.catalog.name} and its sweep to {sweep}: run a sweep for each."
            )

    def format_description(self, description: str) -> str:
        over = self._job.sweep.varied_keys
        own = [each for each in _redacted_overrides(self._job) if each.partition("=")[0] in over]
        return " ".join(part for part in (description, f"({', '.join(own)})" if own else "") if part)

    def register_execution(self, ml: DerivaML, execution: Execution) -> None:
        update_report(self._job, execution=execution.execution_rid, status=Status.running)
        parent = self._job.sweep.parent
        if execution.dry_run or not execution.is_rank_zero or parent == DRY_RUN_RID:
            return
        try:
            nest_execution(ml.connection, ml.lookup_execution(parent), execution, self._job.number)
        except DerivaMLException as error:
            warn(f"Execution {execution.execution_rid} is not nested in that of its sweep, {parent}: {error}")


def update_report(job: SubprocessJob, **changes: Unpack[JobReportUpdate]) -> JobReport:
    """Write how a job stands by now."""
    report = read_report(job.sweep.folder, job.number).model_copy(update=dict(changes))
    write_report(job.sweep.folder, report)
    return report


def _set_up_hydra(job: SubprocessJob) -> tuple[DictConfig, DictConfig]:
    """Have this process be hydra's job, for a model function that asks hydra, and for its log."""
    from hydra.conf import HydraConf
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import configure_log, setup_globals

    setup_globals()
    whole = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf), **job.config})
    OmegaConf.set_struct(whole.hydra, False)  # plugins have keys of their own there
    whole.hydra.merge_with(job.hydra)
    HydraConfig.instance().set_config(whole)
    configure_log(whole.hydra.job_logging, whole.hydra.verbose)
    return OmegaConf.create(job.config), whole.hydra


def _return_value_to_json(value: Any) -> JsonValue:
    """What a model function returned, where JSON has words for it; a tensor of one number is that number."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_return_value_to_json(part) for part in value]
    if isinstance(value, dict):
        return {str(name): _return_value_to_json(part) for name, part in value.items()}
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def install_warning_format() -> None:
    """Have this process, which is a program of ours, say warnings of ours in one line."""
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,  # noqa: ARG001 - as Python calls it
    line: str | None = None,
) -> None:
    text = f"warning: {message}\n"
    if not issubclass(category, DerivaMLWarning):
        text = warnings.formatwarning(message, category, filename, lineno, line)
    sys.stderr.write(text)


if __name__ == "__main__":
    os.environ.pop("DERIVA_ML_EXECUTIONS", None)  # a job is a training of its own, which follows nobody
    sys.exit(main())
