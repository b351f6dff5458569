"""The face that every training sees: what to say, what to keep, and when."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self, SupportsFloat, Unpack

from deriva_ml_core._concurrency.background_worker import BackgroundWorker
from deriva_ml_core.models import Progress
from deriva_ml_core.training.best_effort import log_failure
from deriva_ml_core.training.checkpoints import CheckpointInfo, Checkpoints
from deriva_ml_core.training.execution_handle import ExecutionFactory, ExecutionHandle
from deriva_ml_core.training.files import TrainingFiles
from deriva_ml_core.training.fit import Fit, FitTimer, stage_message
from deriva_ml_core.training.metrics_file import extract_floats
from deriva_ml_core.training.options import TrainingKwargs, TrainingOptions
from deriva_ml_core.training.resume import ResumeState, build_resume_state, link_checkpoint
from deriva_ml_core.training.streaming_upload import StreamingUploader

if TYPE_CHECKING:
    from pydantic import JsonValue

    from deriva_ml_core.execution import Execution

__all__ = ["TrainingReporter"]

log = logging.getLogger(__name__)


class TrainingReporter:
    """Tells an execution how a training goes: statuses, metrics and checkpoints while it trains, an upload at the end.

    Until the fit has ended, whatever goes wrong with any of these is logged as a warning and the training goes on; an
    upload that fails then raises, and leaves everything staged. On the training's thread nothing is done but a line in
    a file; catalogs and stores are spoken to beside it.

    Args:
        execution: The execution that the training belongs to, entered by the user's ``with``; or what makes one, which
            the reporter enters, ends and uploads itself: at the end of the first fit, or where its own ``with`` ends.
        **options: The fields of `TrainingOptions`.

    Raises:
        ConfigurationError: There is no such option, or its value cannot be meant.
        UnknownTable, UnknownTerm: The catalog has no such asset table or asset type.

    Example:
        A loop written by hand; epochs and steps count from 1::

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
        self.options = TrainingOptions.from_kwargs(options)
        self._handle = ExecutionHandle(execution)
        self._worker = BackgroundWorker("deriva-ml-training")
        self._files: TrainingFiles | None = None
        self._uploader: StreamingUploader | None = None
        self._fit: Fit | None = None
        self._exit_deadline: float | None = None
        """When the end of our own execution is to wait no longer, by the monotonic clock."""
        self._resume_state = ResumeState()
        if not self._handle.is_owned:  # its mistakes are found before a long training
            self.begin()

    def __getstate__(self) -> dict[str, object]:
        # a process that was spawned opens its files itself
        return self.__dict__ | dict.fromkeys(("_files", "_uploader", "_fit"))

    def __enter__(self) -> Self:
        self._handle.is_in_with_block = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.is_in_with_block = False
        self._exit_context(error)

    @property
    def execution(self) -> Execution:
        """The execution.

        Raises:
            ExecutionNotStarted: The reporter makes its own when the first fit begins, and none has begun.
        """
        return self._handle.execution

    @property
    def has_own_execution(self) -> bool:
        """Whether the reporter makes and ends the execution."""
        return self._handle.is_owned

    @property
    def is_in_with_block(self) -> bool:
        """Whether the reporter is used in a ``with``."""
        return self._handle.is_in_with_block

    # A fit

    def begin(self) -> Execution:
        """Make the execution where that is to be done here and is not done yet; raises whatever hinders it."""
        execution = self._handle.begin(
            self._resume_state.execution_to_resume(self.options.resume), self._resume_state.check_catalog
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
        """Begin a fit; one execution may have several.

        Args:
            epochs: The number of its last epoch; None where nobody knows.
            settings: What is to be kept of how it is set up, by name: hyperparameters, the optimizer, the model.
            managed: Whether the framework's own callbacks keep checkpoints; then those are kept, unless the option
                ``checkpoints`` asks for others.
        """
        execution = self.begin()
        record = self._require_files()
        self._end_open_fit("broken off: another fit followed")
        number = self._fit.number + 1 if self._fit else 1
        with log_failure("number the fit"):
            number = max(number, record.next_fit_number())  # one that left no line yet counts, too
        checkpoints = Checkpoints(
            execution, self.options, managed=managed, best=self._resume_state.best, submit=self._worker.submit
        )
        self._fit = Fit(number, self.options, record, checkpoints, FitTimer(self.options, epochs), self._report_status)
        with log_failure("keep how the fit is set up"):
            datasets = [spec.model_dump(include={"rid", "version"}) for spec in execution.info.datasets]
            facts = {
                "datasets": datasets,
                "resumed_from": self._resume_state.to_summary(),
                "settings": dict(settings or {}),
            }
            self._fit.begin(facts)
            self._worker.submit(record.write_summary)
        self._record_resumed_checkpoint(execution)

    def end_step(self, step: int, epoch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Tell how a step went: a line in the metrics file, a status, or both, as the options say.

        Args:
            step: Optimizer steps since training began, from 1.
            epoch: The epoch that it belongs to, from 1.
            metrics: Its values by name.
        """
        self._ensure_fit().end_step(step, epoch, metrics)

    def should_report_step(self, step: int) -> bool:
        """Whether `end_step` would do anything with a step; its metrics need not be read otherwise."""
        logged, told = self.options.log_every_n_steps, self.options.every_n_steps
        return (logged is not None and step % logged == 0) or (told is not None and step % told == 0)

    def end_epoch(
        self,
        epoch: int,
        metrics: Mapping[str, SupportsFloat],
        *,
        step: int | None = None,
        samples: int | None = None,
        learning_rates: Mapping[str, float] | None = None,
    ) -> None:
        """Tell how an epoch went: a line in the metrics file, and a status where one is due.

        Args:
            epoch: Its number, from 1.
            metrics: Its values by name: floats, or tensors and arrays of one element; others are left out.
            step: Optimizer steps since training began; None where nobody counts.
            samples: How many samples it trained on; None where nobody counts.
            learning_rates: The learning rates by optimizer.
        """
        self._ensure_fit().end_epoch(epoch, metrics, step, samples, learning_rates)

    def end_validation(self, step: int, epoch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Keep the metrics of a validation within an epoch, of which the epoch's own line will not tell.

        Args:
            step: Optimizer steps since training began.
            epoch: The epoch that goes on, from 1.
            metrics: Its values by name.
        """
        self._ensure_fit().end_validation(step, epoch, metrics)

    def end_stage(
        self, stage: str, metrics: Mapping[str, SupportsFloat], *, seconds: float, step: int | None = None
    ) -> None:
        """Tell how a validation, a test or a prediction beside the fits went.

        Args:
            stage: ``validate``, ``test`` or ``predict``.
            metrics: Its values by name.
            seconds: How long it took.
            step: Optimizer steps of the model so far; None where nobody counts.
        """
        self._record_resumed_checkpoint(self.begin())
        values, _ = extract_floats(metrics)
        fit = self._fit.number if self._fit else 1
        with log_failure(f"keep the metrics of the stage {stage}"):
            self._require_files().append(stage, "epoch", fit, None, step, values, {"seconds": round(seconds, 6)})
        progress = Progress(step=step, metrics=values, stage=stage, seconds=seconds)
        self._report_status(stage_message(progress, seconds), progress)
        if not self._handle.is_in_with_block:
            self._finish_execution(None)

    def end_fit(self, outcome: str = "") -> None:
        """End a fit, and upload all that is staged where that was asked for.

        Args:
            outcome: Why it ended before its last epoch, in words, such as an early stopping's; empty where it did not.

        Raises:
            UploadFailed, MissingFiles: Something is still staged; ``upload_execution_outputs()`` sends it later.
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
        """End a fit that an exception ended; one that is our own ends with it, and what it left is uploaded.

        Args:
            error: What ended it.
        """
        self._end_open_fit(f"{type(error).__name__}: {error}")
        if not self._handle.is_in_with_block and self._handle.is_entered:
            with log_failure("end the execution"):
                self._finish_execution(error)

    # Checkpoints

    @property
    def checkpoints(self) -> Checkpoints:
        """Which checkpoints the present fit keeps, for a framework that writes them itself."""
        return self._ensure_fit().checkpoints

    @property
    def checkpoint_folder(self) -> Path:
        """Where files of the checkpoints' table are staged, known before a fit begins; the execution is made for it."""
        return self.begin().working_dir / "outputs" / self.options.checkpoint_table

    def is_checkpoint_due(self, epoch: int) -> bool:
        """Whether an epoch, from 1, may leave a checkpoint; every process of a training answers alike."""
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
        """Keep a checkpoint of an epoch, if one is due.

        Args:
            epoch: The epoch's number, from 1.
            suffix: How the file's name ends, such as ``.pt``.
            write: Writes the model to the path that it is given, whose name ends so; when it returns, the file is
                renamed to its place.
            metrics: The epoch's values by name, which tell whether it is the best.
            step: Optimizer steps since training began; None where nobody counts.

        Returns:
            Where the checkpoint is; None where none was due, or it could not be written.
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
        """Register a checkpoint that the framework itself writes within `writing_checkpoint`.

        Args:
            epoch: The epoch's number, from 1.
            suffix: How the file's name ends, such as ``.ckpt``.
            metrics: The values by name, which tell whether it is the best.
            step: Optimizer steps since training began; None where nobody counts.
            in_step: Whether the epoch goes on.

        Returns:
            Where to write it, to another name first and then renamed; None where it is not kept, or could not be
            registered.
        """
        values, _ = extract_floats(metrics or {})
        fit = self._ensure_fit()
        return fit.register(CheckpointInfo(fit.number, epoch, step, values, in_step), suffix)

    @contextmanager
    def writing_checkpoint(self, path: Path) -> Iterator[None]:
        """Drop the checkpoint if its writing fails, so that half a file is never uploaded; the training goes on.

        Args:
            path: What `checkpoint_path` gave.
        """
        with log_failure(f"write the checkpoint {path}"):
            try:
                yield
                self.checkpoints.commit(path)
            except BaseException:
                with log_failure(f"forget the checkpoint {path}"):
                    self.checkpoints.discard(path)
                raise
            if self.checkpoints.should_keep_all:
                self.stream_checkpoint(path)

    def stream_checkpoint(self, path: Path) -> None:
        """Send a checkpoint that nothing supersedes any more, while the training goes on, where that is asked for."""
        if self._uploader is not None:
            self._uploader.submit(path)

    # Going on

    def state(self) -> dict[str, JsonValue]:
        """What a checkpoint of the framework carries so that a resumed training knows its run."""
        return build_resume_state(self._handle.current, self._fit.checkpoints if self._fit else None)

    def resume_from(self, state: Mapping[str, object], checkpoint: Path | None) -> None:
        """Take up what `state` gave to a checkpoint from which the next fit or stage goes on.

        Args:
            state: What `state` gave.
            checkpoint: The file or folder that it goes on from; None where it is not known.
        """
        self._resume_state = ResumeState.from_state(state, checkpoint)
        if self._fit is not None:
            self._fit.checkpoints.restore_best(self._resume_state.best)

    def requeue(self, checkpoint: Path) -> None:
        """Keep what was saved because a cluster takes the job back into its queue, and say so.

        It is done beside the training, since the signal that tells of it may come in the middle of anything.
        """
        self._worker.submit(partial(self._requeue, checkpoint))

    # Behind the face

    def _requeue(self, checkpoint: Path) -> None:
        self.checkpoints.stage_existing(checkpoint, is_final=False)
        self._report_status(f"The cluster requeues the job; {checkpoint.name} is kept to go on from")

    def _record_resumed_checkpoint(self, execution: Execution) -> None:
        """Record the checkpoint of another run that was loaded, once."""
        resumed, self._resume_state = self._resume_state, ResumeState()
        if (link := resumed.linked_checkpoint(execution)) is not None:
            with log_failure("record the checkpoint that the training goes on from"):
                link_checkpoint(execution, *link, self._worker)

    def _require_files(self) -> TrainingFiles:
        assert self._files is not None, "begin comes first"
        return self._files

    def _ensure_fit(self) -> Fit:
        if self._fit is None:  # a loop that does not say that it begins
            self.begin_fit()
        assert self._fit is not None
        return self._fit

    def _report_status(self, message: str, progress: Progress | None = None) -> None:
        with log_failure("tell a status"):
            self._handle.report_status(message, progress)

    def _on_execution_exit(self, error: BaseException | None) -> None:
        """End the fit that goes on while the execution's ``with`` is left: no framework need have told of it."""
        self._end_open_fit("the run ended first" if error is None else f"{type(error).__name__}: {error}")
        self._drain()

    def _end_open_fit(self, outcome: str) -> None:
        if self._fit is not None and self._fit.is_open:
            self._fit.end(outcome)
            self._worker.submit(self._fit.files.write_summary)

    def _finish_execution(self, error: BaseException | None) -> None:
        """End what is our own and send what is staged; the user's own execution is only sent."""
        if not self._handle.is_entered:
            self._drain_and_upload()
            return
        self._exit_deadline = monotonic() + self.options.exit_timeout
        with self._handle.warn_if_not_uploaded():
            try:
                self._drain_and_stage_files()
            except BaseException as impatience:  # Ctrl-C while it waits: how the run ended is recorded all the same
                self._handle.end(error or impatience)
                raise
            self._handle.end(error)
            is_wanted = error is None or isinstance(error, Exception)  # Ctrl-C and SIGTERM want the process to end
            (self._upload if is_wanted else self._upload_with_timeout)()

    def _drain(self) -> bool:
        """Wait for what is done beside; all waits of one end together last no longer than the drain."""
        left = self.options.exit_timeout if self._exit_deadline is None else self._exit_deadline - monotonic()
        return self._worker.drain(left - self._handle.execution._exit_elapsed)

    def _exit_context(self, error: BaseException | None) -> None:
        """End what a ``with`` of our own began; after an exception that one goes on, whatever the upload does."""
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
        """Wait, as long as the drain lasts, for what is done beside, and register the training's own files."""
        if not self._drain():
            log.warning(
                "After %g seconds not all is done beside the training; the rest is left.", self.options.exit_timeout
            )
        with log_failure("register the metrics"):
            self._require_files().stage_files(curves=self.options.curves)

    def _upload_with_timeout(self) -> None:
        """Send after Ctrl-C or SIGTERM, by which somebody wants the process to end, no longer than the drain lasts."""
        self._worker.submit(self._upload)
        if not self._drain():
            log.warning("After %g seconds not all is uploaded; what is not stays staged.", self.options.exit_timeout)

    def _upload(self) -> None:
        if self._uploader is not None:
            # what the framework may read again (its best checkpoint, to test with) stays in its place
            self._uploader.upload_all(clean=False if self.has_own_execution else None)
