"""What hydra calls with the configuration of each job: the job itself, or, in a sweep, a process that does it."""

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
"""The beginnings of those overrides, of hydra's own, that say how a sweep is run and not what a job does."""


@dataclass(frozen=True)
class ModelTask:
    """Hydra's task function; a launcher may pickle it.

    Args:
        base_command: How the command line of a single job begins: the program and the options that name the configs.
        sweep: Where the jobs of a sweep meet; None outside of one.
    """

    base_command: tuple[str, ...]
    sweep: SweepInfo | None = None

    def __call__(self, config: DictConfig) -> Any:
        """Run a job.

        Args:
            config: Its configuration.

        Returns:
            What the model function returns. Of a job of hydra's own sweeper that failed, nothing: it would not begin
            the jobs of the next batch after an error.

        Raises:
            Refused: The job failed in a process of its own, or was not begun.
        """
        hydra: Any = HydraConfig.get()
        files = render_hydra_files(config, hydra)
        _hide_from_git(Path(hydra.sweep.dir if hydra.mode is RunMode.MULTIRUN else hydra.runtime.output_dir))
        try:
            OmegaConf.resolve(config)
        except OmegaConfBaseException as error:
            raise JobError(f"The configuration cannot be used: {error}") from error
        if self.sweep is None:
            return run_job(config, hydra, files, JobContext())
        report = run_in_subprocess(
            SubprocessJob.from_hydra(config, hydra, files=files, command=self._job_command(hydra), sweep=self.sweep)
        )
        if report.status is not Status.completed and hydra.sweeper._target_ != BASIC_SWEEPER:
            raise JobError(f"Job {report.number} {report.status.lower()}: {report.error}")
        return report.returned

    def _job_command(self, hydra: Any) -> tuple[str, ...]:
        """The command line that does this job by itself."""
        own = [each for each in hydra.overrides.hydra if not _override_key(each).startswith(SWEEP_OVERRIDE_PREFIXES)]
        return (*self.base_command, *own, *hydra.overrides.task)


def _override_key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].replace("/", ".")


def _hide_from_git(folder: Path) -> None:
    """Have git not see hydra's output folder, so that the files of runs are no uncommitted changes of the next one.

    A folder that anything else lies in, or that the terminal is in, is left alone.
    """
    with suppress(OSError):
        names = {each.name for each in folder.iterdir() if each.is_file() and each.suffix != ".log"}
        if names <= {"multirun.yaml"} and not Path.cwd().is_relative_to(folder.absolute()):
            (folder / ".gitignore").write_text("*\n", encoding="utf-8")
