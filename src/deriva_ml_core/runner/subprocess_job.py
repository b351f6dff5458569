"""Run a job of a sweep in a subprocess, so that a job that is killed or corrupts its process affects no other job.

The process in which Hydra's launcher runs a job starts this module as a program and passes the job over its standard
input. The job therefore starts with the memory, random state and command line of a single run. Its execution records
that command line, which reproduces the job.
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

from deriva_ml_core._progress import replace_missing_streams
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import DRY_RUN_RID, RID, Status
from deriva_ml_core.errors import ConfigurationError, DerivaMLException, DerivaMLWarning
from deriva_ml_core.execution import Execution
from deriva_ml_core.execution.recorded import nest_execution
from deriva_ml_core.runner.job import JobContext, JobError, run_job
from deriva_ml_core.runner.sweep import JobReport, SweepInfo, read_report, write_report
from deriva_ml_core.user_warnings import warn

__all__ = ["SubprocessJob", "install_warning_format", "main", "run_in_subprocess"]


EXIT_INTERRUPTED = 130
"""Exit status of a process that Ctrl-C ended."""

INTERNAL_MODULES = ("__main__", "runpy", "deriva_ml_core", "hydra", "hydra_zen", "functools")
"""Packages whose frames precede those of the model function in a traceback."""


class JobReportUpdate(TypedDict, total=False):
    """The fields of a `JobReport` that change while its job runs."""

    execution: RID
    status: Status
    error: str
    returned: JsonValue


@dataclass(frozen=True)
class SubprocessJob:
    """A job as it is passed to its subprocess.

    Args:
        number: The index of the job in the sweep, from 0.
        overrides: The overrides that distinguish the job from the others.
        command: The command line that runs the job alone.
        config: The configuration as plain values, with resolved interpolations.
        hydra: The node ``hydra`` as plain values, with resolved interpolations.
        files: The texts of Hydra's files by name.
        sys_path: The module search path of the parent process.
        sweep: The sweep that the job belongs to.
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
        """Create the job that Hydra runs now."""
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
    """Run a job in a subprocess and wait for it.

    Args:
        job: The job.

    Returns:
        The final report of the job.
    """
    folder = job.sweep.folder
    write_report(folder, JobReport(number=job.number, overrides=_redacted_overrides(job)))
    # -P keeps a user's queue.py in the working directory from shadowing the standard library; the job's own arguments
    # are not used and only identify the process in a process list
    command = [sys.executable, "-P", "-m", __name__, *job.command[1:]]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:  # noqa: S603 - this module, by this interpreter
        try:
            process.communicate(pickle.dumps(asdict(job)))
        except BaseException:
            process.terminate()  # the signal may have reached this process only
            process.wait()
            raise
        finally:
            report = _finalize_report(read_report(folder, job.number), process.returncode)
            write_report(folder, report)
    return report


def _redacted_overrides(job: SubprocessJob) -> tuple[str, ...]:
    """Return a job's overrides with secrets redacted."""
    from deriva_ml_core.redaction import redact

    overrides = redact([*job.overrides])
    return tuple(map(str, overrides)) if isinstance(overrides, list) else ()


def _finalize_report(report: JobReport, returncode: int) -> JobReport:
    """Return the final report of a job, which is aborted if its process reported no end."""
    if report.status.is_terminal:
        return report
    cause = f"was killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"exited with code {returncode}"
    return report.model_copy(update={"status": Status.aborted, "error": f"Its process {cause}"})


def _resolve_hydra_config(hydra: DictConfig) -> Any:
    try:
        return OmegaConf.to_container(hydra, resolve=True)
    except OmegaConfBaseException:  # settings that this job does not use, such as a launcher's, may not resolve
        return OmegaConf.to_container(hydra, resolve=False)


def main() -> int:
    """Run the job that standard input contains.

    Returns:
        The exit code: 0 if the job completed, 130 after Ctrl-C, else 1.
    """
    replace_missing_streams()
    parts = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by the process that started this one
    job = SubprocessJob(**{**parts, "sweep": SweepInfo.model_validate(parts["sweep"])})
    sys.path[:] = job.sys_path
    install_warning_format()
    sys.argv[:] = job.command  # recorded to reproduce the job, and used by frameworks to start further ranks
    sys.orig_argv[:] = [sys.executable, *job.command]
    try:
        returned = _run_configured_job(job)
    except BaseException as error:
        update_report(job, **_failure_update(error))
        if isinstance(error, KeyboardInterrupt):
            return EXIT_INTERRUPTED  # a traceback of Ctrl-C would not help
        if not isinstance(error, Exception):
            raise
        sys.stderr.write(
            f"error: job {job.number}: {error}\n" if isinstance(error, JobError) else _format_traceback(error)
        )
        return 1
    update_report(job, status=Status.completed, returned=_return_value_to_json(returned))
    return 0


def _format_traceback(error: Exception) -> str:
    """Format an error's traceback from the model function on."""
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
    """Steps around a job of a sweep: they nest its execution in the sweep's, and report its state.

    Args:
        job: The job.
    """

    def __init__(self, job: SubprocessJob) -> None:
        self._job = job

    def check_catalog(self, ml: DerivaML) -> None:
        catalog, sweep_catalog = ml.connection.catalog.name, self._job.sweep.catalog
        if catalog != sweep_catalog:
            raise ConfigurationError(
                f"This job uses the catalog {catalog}, but its sweep uses {sweep_catalog}. Run one sweep per catalog."
            )

    def format_description(self, description: str) -> str:
        varied_keys = self._job.sweep.varied_keys
        varied = [text for text in _redacted_overrides(self._job) if text.partition("=")[0] in varied_keys]
        return " ".join(part for part in (description, f"({', '.join(varied)})" if varied else "") if part)

    def register_execution(self, ml: DerivaML, execution: Execution) -> None:
        update_report(self._job, execution=execution.execution_rid, status=Status.running)
        parent = self._job.sweep.parent
        if execution.dry_run or not execution.is_rank_zero or parent == DRY_RUN_RID:
            return
        try:
            nest_execution(ml.connection, ml.lookup_execution(parent), execution, self._job.number)
        except DerivaMLException as error:
            warn(
                f"Execution {execution.execution_rid} could not be nested in {parent}, the execution of its sweep: "
                f"{error}"
            )


def update_report(job: SubprocessJob, **changes: Unpack[JobReportUpdate]) -> JobReport:
    """Change fields of a job's report, and return the new report."""
    report = read_report(job.sweep.folder, job.number).model_copy(update=dict(changes))
    write_report(job.sweep.folder, report)
    return report


def _set_up_hydra(job: SubprocessJob) -> tuple[DictConfig, DictConfig]:
    """Set up Hydra's global state and logging as in a job, for model functions that use Hydra."""
    from hydra.conf import HydraConf
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import configure_log, setup_globals

    setup_globals()
    composed = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf), **job.config})
    OmegaConf.set_struct(composed.hydra, False)  # Hydra's plugins add keys there
    composed.hydra.merge_with(job.hydra)
    HydraConfig.instance().set_config(composed)
    configure_log(composed.hydra.job_logging, composed.hydra.verbose)
    return OmegaConf.create(job.config), composed.hydra


def _return_value_to_json(value: Any) -> JsonValue:
    """Convert the return value of a model function to JSON; a one-element tensor becomes a number, others None."""
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
    """Show this package's warnings as one line each; only for processes that run this package's own programs."""
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,  # noqa: ARG001 - the signature of warnings.showwarning
    line: str | None = None,
) -> None:
    text = f"warning: {message}\n"
    if not issubclass(category, DerivaMLWarning):
        text = warnings.formatwarning(message, category, filename, lineno, line)
    sys.stderr.write(text)


if __name__ == "__main__":
    os.environ.pop("DERIVA_ML_EXECUTIONS", None)  # a job is a run of its own, not a further rank of the parent's
    sys.exit(main())
