"""Task function that Hydra calls for each job; in a sweep it runs the job in a subprocess."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deriva_ml_core.definitions import Status
from deriva_ml_core.runner.hydra_files import render_hydra_files
from deriva_ml_core.runner.job import JobContext, JobError, run_job
from deriva_ml_core.runner.plan import BASIC_SWEEPER
from deriva_ml_core.runner.subprocess_job import SubprocessJob, run_in_subprocess
from deriva_ml_core.runner.sweep import SweepInfo

__all__ = ["ModelTask"]

SWEEP_OVERRIDE_PREFIXES = ("hydra.launcher", "hydra.mode", "hydra.run", "hydra.sweep")
"""Prefixes of Hydra's overrides that control how a sweep runs, and are left out of a job's own command line."""


@dataclass(frozen=True)
class ModelTask:
    """Hydra's task function; a launcher may pickle it.

    Args:
        base_command: The start of a job's command line: the program and the options that select the configs.
        sweep: The sweep that the jobs belong to; None for a single run.
    """

    base_command: tuple[str, ...]
    sweep: SweepInfo | None = None

    def __call__(self, config: DictConfig) -> Any:
        """Run a job.

        Args:
            config: The configuration of the job.

        Returns:
            The return value of the model function. None for a failed job under Hydra's basic sweeper, which would not
            start the next batch after an error.

        Raises:
            JobError: The configuration is invalid, or the job failed in its subprocess.
        """
        hydra: Any = HydraConfig.get()
        files = render_hydra_files(config, hydra)
        _hide_from_git(Path(hydra.sweep.dir if hydra.mode is RunMode.MULTIRUN else hydra.runtime.output_dir))
        try:
            OmegaConf.resolve(config)
        except OmegaConfBaseException as error:
            raise JobError(f"Invalid configuration: {error}") from error
        if self.sweep is None:
            return run_job(config, hydra, files, JobContext())
        report = run_in_subprocess(
            SubprocessJob.from_hydra(config, hydra, files=files, command=self._job_command(hydra), sweep=self.sweep)
        )
        if report.status is not Status.completed and hydra.sweeper._target_ != BASIC_SWEEPER:
            raise JobError(f"Job {report.number} {report.status.lower()}: {report.error}")
        return report.returned

    def _job_command(self, hydra: Any) -> tuple[str, ...]:
        """Return the command line that runs this job alone."""
        hydra_overrides = [
            override
            for override in hydra.overrides.hydra
            if not _override_key(override).startswith(SWEEP_OVERRIDE_PREFIXES)
        ]
        return (*self.base_command, *hydra_overrides, *hydra.overrides.task)


def _override_key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].replace("/", ".")


def _hide_from_git(folder: Path) -> None:
    """Make Git ignore Hydra's output folder, so that its files are not uncommitted changes of the next run.

    A folder that contains other files, or the working directory, is left alone.
    """
    with suppress(OSError):
        names = {file.name for file in folder.iterdir() if file.is_file() and file.suffix != ".log"}
        if names <= {"multirun.yaml"} and not Path.cwd().is_relative_to(folder.absolute()):
            (folder / ".gitignore").write_text("*\n", encoding="utf-8")
