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

from deriva_ml_core.models import Progress
from deriva_ml_core.training.checkpoints import Checkpoints, Moment
from deriva_ml_core.training.fit import Fit
from deriva_ml_core.training.metrics import as_floats
from deriva_ml_core.training.options import OptionWords, TrainingOptions
from deriva_ml_core.training.pace import Pace
from deriva_ml_core.training.record import Record
from deriva_ml_core.training.resuming import Resumed, link_checkpoint, state_of
from deriva_ml_core.training.run import Opening, Run
from deriva_ml_core.training.sending import Sender
from deriva_ml_core.training.sparing import spared
from deriva_ml_core.training.wording import stage_message
from deriva_ml_core.worker import Worker

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

    def __init__(self, execution: Execution | Opening, **options: Unpack[OptionWords]) -> None:
        self.options = TrainingOptions.of(options)
        self._run = Run(execution)
        self._worker = Worker("deriva-ml-training")
        self._record: Record | None = None
        self._sender: Sender | None = None
        self._fit: Fit | None = None
        self._ends_by: float | None = None
        """When the end of our own execution is to wait no longer, by the monotonic clock."""
        self._resumed = Resumed()
        if not self._run.own:  # its mistakes are found before a long training
            self.begin()

    def __getstate__(self) -> dict[str, object]:
        # a process that was spawned opens its files itself
        return self.__dict__ | dict.fromkeys(("_record", "_sender", "_fit"))

    def __enter__(self) -> Self:
        self._run.held = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run.held = False
        self._close(error)

    @property
    def execution(self) -> Execution:
        """The execution.

        Raises:
            ExecutionNotBegun: The reporter makes its own when the first fit begins, and none has begun.
        """
        return self._run.execution

    @property
    def own(self) -> bool:
        """Whether the reporter makes and ends the execution."""
        return self._run.own

    @property
    def held(self) -> bool:
        """Whether the reporter is used in a ``with``."""
        return self._run.held

    # A fit

    def begin(self) -> Execution:
        """Make the execution where that is to be done here and is not done yet; raises whatever hinders it."""
        execution = self._run.begin(self._resumed.same_run(self.options.resume), self._resumed.check_catalog)
        if self._record is None or self._record.execution is not execution:
            try:
                execution.check_asset(self.options.checkpoint_table, self.options.checkpoint_types)
            except BaseException as error:
                self._run.end(error)
                raise
            self._record = Record(execution)
            self._sender = Sender(execution, self._worker, self.options.upload, self.options.drain)
            self._fit = None
            execution.at_end(self._leave)
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
        record = self._kept()
        self._end("broken off: another fit followed")
        number = self._fit.number + 1 if self._fit else 1
        with spared("number the fit"):
            number = max(number, record.next_fit())  # one that left no line yet counts, too
        checkpoints = Checkpoints(
            execution, self.options, managed=managed, best=self._resumed.best, beside=self._worker.submit
        )
        self._fit = Fit(number, self.options, record, checkpoints, Pace(self.options, epochs), self._tell)
        with spared("keep how the fit is set up"):
            datasets = [spec.model_dump(include={"rid", "version"}) for spec in execution.record.datasets]
            facts = {"datasets": datasets, "resumed_from": self._resumed.facts(), "settings": dict(settings or {})}
            self._fit.begin(facts)
            self._worker.submit(record.write_facts)
        self._link_origin(execution)

    def end_step(self, step: int, epoch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Tell how a step went: a line in the metrics file, a status, or both, as the options say.

        Args:
            step: Optimizer steps since training began, from 1.
            epoch: The epoch that it belongs to, from 1.
            metrics: Its values by name.
        """
        self._in_fit().end_step(step, epoch, metrics)

    def wants_step(self, step: int) -> bool:
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
        self._in_fit().end_epoch(epoch, metrics, step, samples, learning_rates)

    def end_validation(self, step: int, epoch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Keep the metrics of a validation within an epoch, of which the epoch's own line will not tell.

        Args:
            step: Optimizer steps since training began.
            epoch: The epoch that goes on, from 1.
            metrics: Its values by name.
        """
        self._in_fit().end_validation(step, epoch, metrics)

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
        self._link_origin(self.begin())
        values, _ = as_floats(metrics)
        fit = self._fit.number if self._fit else 1
        with spared(f"keep the metrics of the stage {stage}"):
            self._kept().append(stage, "epoch", fit, None, step, values, {"seconds": round(seconds, 6)})
        progress = Progress(step=step, metrics=values, stage=stage, seconds=seconds)
        self._tell(stage_message(progress, seconds), progress)
        if not self._run.held:
            self._finish(None)

    def end_fit(self, outcome: str = "") -> None:
        """End a fit, and upload all that is staged where that was asked for.

        Args:
            outcome: Why it ended before its last epoch, in words, such as an early stopping's; empty where it did not.

        Raises:
            UploadFailed, MissingFiles: Something is still staged; ``upload_execution_outputs()`` sends it later.
        """
        self._end(outcome or "completed")
        if outcome and self._fit:
            done, epochs = self._fit.pace.done, self._fit.pace.epochs
            self._tell(f"Fit ended after {done}{'' if epochs is None else f' of {epochs}'} epochs: {outcome}")
        if not self._run.held:
            self._finish(None)
        elif not self.own:
            self._send()

    def fail(self, error: BaseException) -> None:
        """End a fit that an exception ended; one that is our own ends with it, and what it left is uploaded.

        Args:
            error: What ended it.
        """
        self._end(f"{type(error).__name__}: {error}")
        if not self._run.held and self._run.is_inside:
            with spared("end the execution"):
                self._finish(error)

    # Checkpoints

    @property
    def checkpoints(self) -> Checkpoints:
        """Which checkpoints the present fit keeps, for a framework that writes them itself."""
        return self._in_fit().checkpoints

    @property
    def checkpoint_folder(self) -> Path:
        """Where files of the checkpoints' table are staged, known before a fit begins; the execution is made for it."""
        return self.begin().working_dir / "outputs" / self.options.checkpoint_table

    def checkpoint_due(self, epoch: int) -> bool:
        """Whether an epoch, from 1, may leave a checkpoint; every process of a training answers alike."""
        return self.checkpoints.due(epoch)

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
        path = self.checkpoint_path(epoch, suffix, metrics, step=step) if self.checkpoint_due(epoch) else None
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
        values, _ = as_floats(metrics or {})
        fit = self._in_fit()
        return fit.register(Moment(fit.number, epoch, step, values, in_step), suffix)

    @contextmanager
    def writing_checkpoint(self, path: Path) -> Iterator[None]:
        """Drop the checkpoint if its writing fails, so that half a file is never uploaded; the training goes on.

        Args:
            path: What `checkpoint_path` gave.
        """
        with spared(f"write the checkpoint {path}"):
            try:
                yield
                self.checkpoints.written(path)
            except BaseException:
                with spared(f"forget the checkpoint {path}"):
                    self.checkpoints.drop(path)
                raise
            if self.checkpoints.keeps_all:
                self.send_soon(path)

    def send_soon(self, path: Path) -> None:
        """Send a checkpoint that nothing supersedes any more, while the training goes on, where that is asked for."""
        if self._sender is not None:
            self._sender.soon(path)

    # Going on

    def state(self) -> dict[str, JsonValue]:
        """What a checkpoint of the framework carries so that a resumed training knows its run."""
        return state_of(self._run.begun, self._fit.checkpoints if self._fit else None)

    def resume_from(self, state: Mapping[str, object], checkpoint: Path | None) -> None:
        """Take up what `state` gave to a checkpoint from which the next fit or stage goes on.

        Args:
            state: What `state` gave.
            checkpoint: The file or folder that it goes on from; None where it is not known.
        """
        self._resumed = Resumed.of(state, checkpoint)
        if self._fit is not None:
            self._fit.checkpoints.go_on_from(self._resumed.best)

    def requeue(self, checkpoint: Path) -> None:
        """Keep what was saved because a cluster takes the job back into its queue, and say so.

        It is done beside the training, since the signal that tells of it may come in the middle of anything.
        """
        self._worker.submit(partial(self._requeue, checkpoint))

    # Behind the face

    def _requeue(self, checkpoint: Path) -> None:
        self.checkpoints.adopt(checkpoint, whole=False)
        self._tell(f"The cluster requeues the job; {checkpoint.name} is kept to go on from")

    def _link_origin(self, execution: Execution) -> None:
        """Record the checkpoint of another run that was loaded, once."""
        resumed, self._resumed = self._resumed, Resumed()
        if (link := resumed.link(execution)) is not None:
            with spared("record the checkpoint that the training goes on from"):
                link_checkpoint(execution, *link, self._worker)

    def _kept(self) -> Record:
        assert self._record is not None, "begin comes first"
        return self._record

    def _in_fit(self) -> Fit:
        if self._fit is None:  # a loop that does not say that it begins
            self.begin_fit()
        assert self._fit is not None
        return self._fit

    def _tell(self, message: str, progress: Progress | None = None) -> None:
        with spared("tell a status"):
            self._run.say(message, progress)

    def _leave(self, error: BaseException | None) -> None:
        """End the fit that goes on while the execution's ``with`` is left: no framework need have told of it."""
        self._end("the run ended first" if error is None else f"{type(error).__name__}: {error}")
        self._drain()

    def _end(self, outcome: str) -> None:
        if self._fit is not None and self._fit.is_open:
            self._fit.end(outcome)
            self._worker.submit(self._fit.record.write_facts)

    def _finish(self, error: BaseException | None) -> None:
        """End what is our own and send what is staged; the user's own execution is only sent."""
        if not self._run.is_inside:
            self._send()
            return
        self._ends_by = monotonic() + self.options.drain
        with self._run.telling_of_unsent():
            try:
                self._round_off()
            except BaseException as impatience:  # Ctrl-C while it waits: how the run ended is recorded all the same
                self._run.end(error or impatience)
                raise
            self._run.end(error)
            is_wanted = error is None or isinstance(error, Exception)  # Ctrl-C and SIGTERM want the process to end
            (self._send_all if is_wanted else self._send_in_time)()

    def _drain(self) -> bool:
        """Wait for what is done beside; all waits of one end together last no longer than the drain."""
        left = self.options.drain if self._ends_by is None else self._ends_by - monotonic()
        return self._worker.drain(left - self._run.execution.seconds_of_leaving)

    def _close(self, error: BaseException | None) -> None:
        """End what a ``with`` of our own began; after an exception that one goes on, whatever the upload does."""
        if self._run.is_inside and error is None:
            self._finish(None)
        elif self._run.is_inside:
            with spared("end the execution"):
                self._finish(error)

    def _send(self) -> None:
        self._ends_by = None
        self._round_off()
        self._send_all()

    def _round_off(self) -> None:
        """Wait, as long as the drain lasts, for what is done beside, and register the training's own files."""
        if not self._drain():
            log.warning("After %g seconds not all is done beside the training; the rest is left.", self.options.drain)
        with spared("register the metrics"):
            self._kept().register(curves=self.options.curves)

    def _send_in_time(self) -> None:
        """Send after Ctrl-C or SIGTERM, by which somebody wants the process to end, no longer than the drain lasts."""
        self._worker.submit(self._send_all)
        if not self._drain():
            log.warning("After %g seconds not all is uploaded; what is not stays staged.", self.options.drain)

    def _send_all(self) -> None:
        if self._sender is not None:
            # what the framework may read again (its best checkpoint, to test with) stays in its place
            self._sender.all(clean=False if self.own else None)
