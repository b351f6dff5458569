"""`TrainingReporter`, the API that every training loop and framework integration uses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self, SupportsFloat, Unpack

from deriva_ml_core._concurrency.background_worker import BackgroundWorker
from deriva_ml_core._deprecation import deprecated_attributes
from deriva_ml_core._text import describe_error
from deriva_ml_core.media.logger import LoggedMedia, MediaLogger
from deriva_ml_core.metric_modes import Monitor
from deriva_ml_core.models import Progress
from deriva_ml_core.training.checkpoints import BestCheckpoint, CheckpointInfo, Checkpoints
from deriva_ml_core.training.execution_handle import ExecutionFactory, ExecutionHandle
from deriva_ml_core.training.files import TrainingFiles
from deriva_ml_core.training.fit import Fit, FitTimer, log_failure, stage_message
from deriva_ml_core.training.metrics_file import extract_floats
from deriva_ml_core.training.options import TrainingKwargs, TrainingOptions
from deriva_ml_core.training.resume import ResumeState, build_resume_state, link_checkpoint
from deriva_ml_core.training.streaming_upload import StreamingUploader

if TYPE_CHECKING:
    from pydantic import JsonValue

    from deriva_ml_core.execution import Execution

__all__ = ["TrainingReporter"]

log = logging.getLogger(__name__)


class TrainingReporter(MediaLogger):
    """Records a training in an execution: status, metrics and checkpoints during training, an upload at the end.

    A failure to record is logged as a warning and never ends the training. Only the upload at the end of a fit may
    raise; the files stay staged then. The training thread only appends lines to files; a background thread accesses
    the catalog and the store.

    A training loop calls `begin_fit`, `end_epoch` and `end_fit`, and optionally `end_step` and `save_checkpoint`. An
    integration calls the same methods from a framework's callbacks. These names are for integrations:

    - Lifecycle: `begin` creates the execution before a fit, `fail` ends a fit after an exception. `execution`,
      `has_own_execution` and `is_in_with_block` describe which execution is used and what ends it.
      `is_in_forked_child` is true in a forked process, which does not end the execution. The reporter is a context
      manager, in which several fits and stages share an execution. `options` are the validated options.
    - Images, figures and tables: `log_image`, `log_figure` and `log_table` record the current fit with them.
    - Metrics: `end_validation` for a validation within an epoch, `end_stage` for a stage outside a fit.
      `should_report_step` shows whether the metrics of a step need to be read at all.
    - Checkpoints that the framework writes to a path chosen by the reporter: `is_checkpoint_due`, `checkpoint_path`,
      `writing_checkpoint`.
    - Checkpoints that the framework writes to paths of its own: `checkpoints` stages them, `stream_checkpoint` uploads
      one during training, `checkpoint_folder` is a folder from which they are not copied. `monitor` is the metric that
      decides which checkpoint is the best; the framework adds what its callbacks and metrics know.
    - Resuming: `state` is stored in a checkpoint, `resume_from` reads it, `requeue` records the checkpoint of a job
      that a cluster requeues.

    Args:
        execution: An execution that the user has entered, or a factory that creates one. The reporter itself enters,
            ends and uploads an execution from a factory: at the end of each fit, or of its own ``with`` block. A copy
            of the reporter is outside of that block.
        **options: Fields of `TrainingOptions`.

    Raises:
        ConfigurationError: An option is unknown or has an invalid value.
        UnknownTable, UnknownTerm: The catalog does not have the asset table or asset type.

    Example:
        A training loop; epochs and steps count from 1::

            def save(path: Path) -> None:
                with path.open("wb") as file:
                    torch.save(model.state_dict(), file)

            with ml.create_execution(configuration) as execution:
                reporter = TrainingReporter(execution)
                reporter.begin_fit(epochs=10)
                for epoch in range(1, 11):
                    metrics = {"loss": train_epoch(model, data), "val_loss": validate(model)}
                    reporter.save_checkpoint(epoch, ".pt", save, metrics)
                    reporter.end_epoch(epoch, metrics)
                reporter.end_fit()
    """

    def __init__(self, execution: Execution | ExecutionFactory, **options: Unpack[TrainingKwargs]) -> None:
        self._options = TrainingOptions.from_kwargs(options)
        self._handle = ExecutionHandle(execution)
        self._worker = BackgroundWorker("deriva-ml-training")
        self._files: TrainingFiles | None = None
        self._uploader: StreamingUploader | None = None
        self._fit: Fit | None = None
        self._monitor = Monitor(self._options.monitor, self._options.mode)
        self._is_live = self._options.live
        """Whether fits draw their metrics in a notebook's cell; false once that turned out to be impossible."""
        self._exit_deadline: float | None = None
        """Time by the monotonic clock at which the end of an owned execution stops waiting."""
        self._resume_state = ResumeState()
        if not self._handle.is_owned:  # finds wrong options before a long training
            self.begin()

    if not TYPE_CHECKING:
        __getattr__ = deprecated_attributes(
            {
                "own": "has_own_execution",
                "held": "is_in_with_block",
                "wants_step": "should_report_step",
                "checkpoint_due": "is_checkpoint_due",
                "send_soon": "stream_checkpoint",
            }
        )

    def __getstate__(self) -> dict[str, object]:
        # a copy, in this or a spawned process, opens the files itself
        return self.__dict__ | dict.fromkeys(("_files", "_uploader", "_fit", "_exit_deadline"))

    def __enter__(self) -> Self:
        self._handle.enter_block()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.leave_block()
        self._exit_context(error)

    @property
    def options(self) -> TrainingOptions:
        """Options of the training."""
        return self._options

    @property
    def execution(self) -> Execution:
        """Execution of the training.

        Raises:
            ExecutionNotStarted: The reporter creates the execution when training starts, and training has not started.
        """
        return self._handle.execution

    @property
    def has_own_execution(self) -> bool:
        """Whether the reporter creates and ends the execution."""
        return self._handle.is_owned

    @property
    def is_in_with_block(self) -> bool:
        """Whether the reporter is used as a context manager, so that the end of the block ends the execution."""
        return self._handle.is_in_with_block

    @property
    def is_in_forked_child(self) -> bool:
        """Whether another process entered the ``with`` block; that process records the end of the training."""
        return self._handle.is_in_forked_child

    # Fits and stages

    def begin(self, *, for_fit: bool = False) -> Execution:
        """Create the execution if the reporter owns it and it does not exist; an error is raised, not logged.

        Args:
            for_fit: Whether a fit begins, which needs a new execution if the last one has ended.

        Returns:
            Execution of the training.
        """
        execution = self._handle.begin(
            self._resume_state.execution_to_resume(self.options.resume),
            self._resume_state.check_catalog,
            for_fit=for_fit,
        )
        if self._files is None or self._files.execution is not execution:
            try:
                execution._check_asset_table(self.options.checkpoint_table, self.options.checkpoint_types)
            except BaseException as error:
                self._handle.end(error)
                raise
            self._files = TrainingFiles(execution)
            self._uploader = StreamingUploader(execution, self._worker, self.options.upload, self.options.exit_timeout)
            self._fit = None
            execution.add_exit_callback(self._on_execution_exit)
        return execution

    def begin_fit(
        self,
        epochs: int | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        managed: bool = False,
    ) -> None:
        """Begin a fit; an execution that a ``with`` block ends may have several.

        Args:
            epochs: Total number of epochs, or None if unknown.
            settings: Settings to record, by name: hyperparameters, optimizer, model and the like.
            managed: Whether the framework's own callbacks keep checkpoints. Then the reporter keeps no others, unless
                the option ``checkpoints`` asks for them.
        """
        execution = self.begin(for_fit=True)
        files = self._require_files()
        self._end_open_fit("interrupted by another fit")
        number = self._fit.number + 1 if self._fit else 1
        with log_failure("number the fit"):
            number = max(number, files.next_fit_number())  # the previous fit counts even without a line in a file
        self._resume_state.restore_monitor(self._monitor)
        earlier_bests: list[BestCheckpoint] = []
        with log_failure("read the best checkpoints of earlier fits"):
            earlier_bests = files.best_checkpoints()
        checkpoints = Checkpoints(
            execution,
            self.options,
            managed=managed,
            monitor=self._monitor,
            best=self._resume_state.best_values,
            earlier_bests=earlier_bests,
            submit=self._worker.submit,
        )
        timer = FitTimer(self.options, epochs)
        self._fit = Fit(number, self.options, files, checkpoints, self._monitor, timer, self._report_status)
        with log_failure("record the settings of the fit"):
            datasets = [spec.model_dump(include={"rid", "version"}) for spec in execution.info.datasets]
            fields = {
                "datasets": datasets,
                "resumed_from": self._resume_state.to_summary(),
                "settings": dict(settings or {}),
            }
            self._fit.begin(fields)
            self._worker.submit(files.write_summary)
        self._record_resumed_checkpoint(execution)
        self._start_live_curve(execution)

    def _start_live_curve(self, execution: Execution) -> None:
        """Draw the metrics in the notebook's cell from now on, if the option ``live`` asks for it."""
        files = self._require_files()
        if self._is_live and files.live is None and execution.is_rank_zero:
            from deriva_ml_core.training.live_curve import open_live_curve

            with log_failure("show the live curve"):
                files.live = open_live_curve(execution.execution_rid)
            self._is_live = files.live is not None

    def end_step(self, step: int, epoch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Report a step: log its metrics, update the status, or both, according to the options.

        Args:
            step: Optimizer steps since training began, from 1.
            epoch: Number of the step's epoch, from 1.
            metrics: Metric values by name.
        """
        fit = self._ensure_fit()
        with log_failure(f"report step {step}"):
            fit.end_step(int(step), int(epoch), metrics)

    def should_report_step(self, step: int) -> bool:
        """Whether `end_step` logs or reports a step; otherwise its metrics need not be read."""
        intervals = (self.options.log_every_n_steps, self.options.every_n_steps)
        return any(interval is not None and step % interval == 0 for interval in intervals)

    def end_epoch(
        self,
        epoch: int,
        metrics: Mapping[str, SupportsFloat],
        *,
        step: int | None = None,
        samples: int | None = None,
        learning_rates: Mapping[str, float] | None = None,
    ) -> None:
        """Report the end of an epoch: log its metrics, and update the status if due.

        Args:
            epoch: Number of the epoch, from 1.
            metrics: Metric values by name: floats, or tensors and arrays of one element; others are skipped.
            step: Optimizer steps since training began; None if unknown.
            samples: Number of samples in the epoch; None if unknown.
            learning_rates: Learning rates by optimizer.
        """
        fit = self._ensure_fit()
        with log_failure(f"report epoch {epoch}"):
            fit.end_epoch(int(epoch), metrics, None if step is None else int(step), samples, learning_rates)

    def end_validation(self, step: int, epoch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Log the metrics of a validation within an epoch, which the metrics of the epoch do not include.

        If the fit ends before that epoch does, the last such validation is also reported as a status.

        Args:
            step: Optimizer steps since training began.
            epoch: Number of the current epoch, from 1.
            metrics: Metric values by name.
        """
        fit = self._ensure_fit()
        with log_failure(f"report the validation at step {step}"):
            fit.end_validation(int(step), int(epoch), metrics)

    def end_stage(
        self, stage: str, metrics: Mapping[str, SupportsFloat], *, seconds: float, step: int | None = None
    ) -> None:
        """Report the end of a validation, test or prediction outside a fit.

        Args:
            stage: ``validate``, ``test`` or ``predict``.
            metrics: Metric values by name.
            seconds: Duration in seconds.
            step: Optimizer steps of the model so far; None if unknown.
        """
        self._record_resumed_checkpoint(self.begin())
        values, _ = extract_floats(metrics)
        fit = self._fit.number if self._fit else 1
        with log_failure(f"log the metrics of the stage {stage}"):
            self._require_files().append(stage, "epoch", fit, None, step, values, {"seconds": round(seconds, 6)})
        progress = Progress(step=step, metrics=values, stage=stage, seconds=seconds)
        self._report_status(stage_message(progress, seconds), progress)
        is_within_fit = self._fit is not None and self._fit.is_open
        if not self._handle.is_in_with_block and not is_within_fit:
            self._finish_execution(None)

    def end_fit(self, outcome: str = "") -> None:
        """End a fit and upload all staged files, unless the option ``upload`` is ``"never"``.

        Args:
            outcome: Why the fit ended before its last epoch, such as early stopping; empty if it did not.

        Raises:
            UploadFailed, MissingFiles: Files are still staged; ``upload_execution_outputs()`` uploads them later.
        """
        self._end_open_fit(outcome or "completed")
        if outcome and self._fit:
            done, epochs = self._fit.timer.epochs_done, self._fit.timer.epochs
            self._report_status(f"Fit ended after {done}{'' if epochs is None else f' of {epochs}'} epochs: {outcome}")
        if not self._handle.is_in_with_block:
            self._finish_execution(None)
        elif not self.has_own_execution:
            self._drain_and_upload()

    def fail(self, error: BaseException) -> None:
        """End a fit or stage after an exception; an execution that the reporter owns ends too, and is uploaded.

        An execution that has ended before keeps its status; the exception becomes a status message.

        Args:
            error: The exception.
        """
        text = describe_error(error)
        self._end_open_fit(text)
        if self._handle.is_in_with_block:
            return
        if self._handle.is_entered:
            with log_failure("end the execution"):
                self._finish_execution(error)
        elif self._handle.has_ended:
            self._report_status(f"Failed after the end of the run: {text}")
            with log_failure("upload the files of the training"):
                self._drain_and_upload()
            self.execution._warn_not_uploaded()

    # Checkpoints

    @property
    def checkpoints(self) -> Checkpoints:
        """Checkpoints of the current fit, for a framework that writes them to paths of its own."""
        return self._ensure_fit().checkpoints

    @property
    def checkpoint_folder(self) -> Path:
        """Staging folder of the checkpoint table; reading it creates the execution if necessary."""
        return self.begin().working_dir / "outputs" / self.options.checkpoint_table

    @property
    def monitor(self) -> Monitor:
        """The metric that decides which checkpoint is the best; all fits of the reporter share it."""
        return self._monitor

    def is_checkpoint_due(self, epoch: int) -> bool:
        """Whether a checkpoint may be saved at the end of an epoch, from 1; the same in every process."""
        return self.checkpoints.is_due(epoch)

    def save_checkpoint(
        self,
        epoch: int,
        suffix: str,
        write: Callable[[Path], object],
        metrics: Mapping[str, SupportsFloat] | None = None,
        *,
        step: int | None = None,
    ) -> Path | None:
        """Save a checkpoint of an epoch if one is due.

        Args:
            epoch: Number of the epoch, from 1.
            suffix: Suffix of the file name, such as ``.pt``.
            write: Function that writes the model to the path it is called with, which has this suffix. The file is
                renamed when the function returns.
            metrics: Metric values of the epoch by name, which decide whether it is the best.
            step: Optimizer steps since training began; None if unknown.

        Returns:
            Path of the checkpoint; None if none was due or it could not be written.
        """
        path = self.checkpoint_path(epoch, suffix, metrics, step=step) if self.is_checkpoint_due(epoch) else None
        if path is None:
            return None
        with self.writing_checkpoint(path):
            self.checkpoints.write(path, write)
        return path if path.exists() else None

    def checkpoint_path(
        self,
        epoch: int,
        suffix: str,
        metrics: Mapping[str, SupportsFloat] | None = None,
        *,
        step: int | None = None,
        in_step: bool = False,
    ) -> Path | None:
        """Register a checkpoint that the framework writes within `writing_checkpoint`.

        Args:
            epoch: Number of the epoch, from 1.
            suffix: Suffix of the file name, such as ``.ckpt``.
            metrics: Metric values by name, which decide whether it is the best.
            step: Optimizer steps since training began; None if unknown.
            in_step: Whether the checkpoint is taken within the epoch, and not at its end.

        Returns:
            Path to write to, under another name first and then renamed; None if the checkpoint is not kept or could
            not be registered.
        """
        values, _ = extract_floats(metrics or {})
        fit = self._ensure_fit()
        return fit.register(CheckpointInfo(fit.number, epoch, step, values, in_step), suffix)

    @contextmanager
    def writing_checkpoint(self, path: Path) -> Iterator[None]:
        """Commit the checkpoint written in the block; if the block raises, log it and discard the checkpoint.

        Args:
            path: Path from `checkpoint_path`.
        """
        with log_failure(f"write the checkpoint {path}"):
            try:
                yield
                self.checkpoints.commit(path)
            except BaseException:
                with log_failure(f"discard the checkpoint {path}"):
                    self.checkpoints.discard(path)
                raise
            if self.checkpoints.should_keep_all:
                self.stream_checkpoint(path)

    def stream_checkpoint(self, path: Path) -> None:
        """Upload a final checkpoint in the background, if the option ``upload`` asks for it."""
        if self._uploader is not None:
            self._uploader.submit(path)

    # Resuming

    def state(self) -> dict[str, JsonValue]:
        """Return the state to store in a framework's checkpoint, from which a resumed training knows its run."""
        return build_resume_state(self._handle.current, self._fit.checkpoints if self._fit else None, self._monitor)

    def resume_from(self, state: Mapping[str, object], checkpoint: Path | None) -> None:
        """Resume the run of a checkpoint with the next fit or stage.

        Args:
            state: Value of `state` that the checkpoint stores.
            checkpoint: File or folder of the checkpoint; None if unknown.
        """
        self._resume_state = ResumeState.from_state(state, checkpoint)
        if self._fit is not None:
            self._resume_state.restore_monitor(self._monitor)
            self._fit.checkpoints.restore_best(self._resume_state.best_values)

    def requeue(self, checkpoint: Path) -> None:
        """Stage the checkpoint of a job that a cluster requeues, and report a status.

        This runs in the background, since the cluster's signal may interrupt any code.
        """
        self._worker.submit(partial(self._requeue, checkpoint))

    # Private

    def _log_media(self, media: LoggedMedia) -> None:
        with log_failure(f"log the {media.kind}"):
            execution = self._handle.execution
            fit = self._fit.number if self._fit is not None and self._fit.is_open else None
            execution._log_media(replace(media, fit=fit), self.options.max_media)

    def _requeue(self, checkpoint: Path) -> None:
        self.checkpoints.stage_existing(checkpoint, is_final=False)
        self._report_status(f"The cluster requeues the job; it will resume from {checkpoint.name}")

    def _record_resumed_checkpoint(self, execution: Execution) -> None:
        """Record the loaded checkpoint of another run as an input, once."""
        resumed, self._resume_state = self._resume_state, ResumeState()
        if (link := resumed.linked_checkpoint(execution)) is not None:
            with log_failure("record the resumed checkpoint as an input"):
                link_checkpoint(execution, *link, self._worker)

    def _require_files(self) -> TrainingFiles:
        assert self._files is not None, "begin() has not been called"
        return self._files

    def _ensure_fit(self) -> Fit:
        if self._fit is None:  # the loop did not call begin_fit
            self.begin_fit()
        assert self._fit is not None
        return self._fit

    def _report_status(self, message: str, progress: Progress | None = None) -> None:
        with log_failure("report status"):
            self._handle.report_status(message, progress)

    def _on_execution_exit(self, error: BaseException | None) -> None:
        """End an open fit when the execution ends; the framework may not have reported its end."""
        self._end_open_fit("the execution ended" if error is None else describe_error(error))
        self._drain()
        self._require_files().close()

    def _end_open_fit(self, outcome: str) -> None:
        if self._fit is not None and self._fit.is_open:
            self._fit.end(outcome)
            if self._fit.files.live is not None:
                self._fit.files.live.stop()
                self._fit.files.live = None
            self.execution._lines.metric = self._monitor.name
            self._worker.submit(self._fit.files.write_summary)

    def _finish_execution(self, error: BaseException | None) -> None:
        """End the execution if the reporter owns it, and upload staged files."""
        if not self._handle.is_entered:
            self._drain_and_upload()
            return
        self._exit_deadline = monotonic() + self.options.exit_timeout
        with self._handle.uploading():
            try:
                self._drain_and_stage_files()
            except BaseException as interrupt:  # Ctrl-C while waiting: the status of the run is recorded all the same
                self._handle.end(error or interrupt)
                raise
            self._handle.end(error)
            is_exiting = error is not None and not isinstance(error, Exception)  # Ctrl-C or SIGTERM
            (self._upload_with_timeout if is_exiting else self._upload)()

    def _drain(self) -> bool:
        """Wait for background work; all waits of one exit share ``exit_timeout``."""
        return self._worker.drain(self._seconds_left())

    def _seconds_left(self) -> float:
        left = self.options.exit_timeout if self._exit_deadline is None else self._exit_deadline - monotonic()
        return left - self._handle.execution._exit_elapsed

    def _exit_context(self, error: BaseException | None) -> None:
        """End an owned execution at the end of a ``with`` block; an error of the upload never hides an exception."""
        if self._handle.is_entered and error is None:
            self._finish_execution(None)
        elif self._handle.is_entered:
            with log_failure("end the execution"):
                self._finish_execution(error)

    def _drain_and_upload(self) -> None:
        self._exit_deadline = None
        self._drain_and_stage_files()
        self._upload()

    def _drain_and_stage_files(self) -> None:
        """Wait for background work, at most ``exit_timeout``, and stage the training files."""
        if not self._drain():
            log.warning("Background work did not finish within %g s; the rest is skipped.", self.options.exit_timeout)
        self._handle.execution._drain_media(self._seconds_left())
        with log_failure("stage the training files"):
            self._require_files().stage_files(curves=self.options.curves)

    def _upload_with_timeout(self) -> None:
        """Upload for at most ``exit_timeout``, since after Ctrl-C or SIGTERM the process should exit soon."""
        self._worker.submit(self._upload)
        if not self._drain():
            log.warning(
                "The upload did not finish within %g s; the remaining files stay staged.", self.options.exit_timeout
            )

    def _upload(self) -> None:
        if self._uploader is not None:
            # the framework may read a checkpoint again, such as the best one for a test, so files of an owned
            # execution are not removed
            self._uploader.upload_all(clean=False if self.has_own_execution else None)
