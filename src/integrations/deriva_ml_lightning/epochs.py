"""The epochs and steps of a fit, told when all of their metrics are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, SupportsFloat

from deriva_ml_core.training import TrainingReporter
from deriva_ml_core.training.metrics_file import extract_floats

__all__ = ["EpochTracker", "StageTracker", "drop_step_and_epoch_duplicates"]


@dataclass(frozen=True)
class _EndedEpoch:
    """An epoch that has ended; the module's own ``on_train_epoch_end`` may still add to its metrics."""

    number: int
    step: int
    metrics: Mapping[str, SupportsFloat]
    samples: int
    learning_rates: Mapping[str, float]


class EpochTracker:
    """Follows one fit. Whatever reads metrics runs on every rank, since that may make them meet; rank zero reports.

    Args:
        reporter: What is told.
    """

    def __init__(self, reporter: TrainingReporter) -> None:
        self._reporter = reporter
        options = reporter.options
        self._should_report_steps = options.log_every_n_steps is not None or options.every_n_steps is not None
        self._ended_epoch: _EndedEpoch | None = None
        self._reported_metrics: Mapping[str, object] = {}
        self._learning_rates: dict[str, float] = {}
        self._samples = 0
        self._step = 0

    def begin(self, trainer: Any) -> None:
        """A fit begins."""
        self._ended_epoch, self._reported_metrics, self._learning_rates, self._samples = None, {}, {}, 0
        self._step = trainer.global_step

    def begin_epoch(self, trainer: Any) -> None:
        """An epoch begins: the learning rates are taken that it trains with."""
        self._learning_rates = learning_rates(trainer.optimizers)

    def end_batch(self, trainer: Any, batch: object) -> int | None:
        """A batch has been trained on.

        Returns:
            The step that ended with it; None where it only added to the gradients.
        """
        self._samples += count_samples(batch)
        if (step := trainer.global_step) == self._step:
            return None
        self._step = step
        if self._should_report_steps and trainer.is_global_zero and self._reporter.should_report_step(step):
            self._reporter.end_step(
                step, trainer.current_epoch + 1, drop_step_and_epoch_duplicates(_step_metrics(trainer))
            )
        return int(step)

    def end_epoch(self, trainer: Any) -> Mapping[str, SupportsFloat]:
        """An epoch has ended.

        Returns:
            The metrics that it has logged by now.
        """
        metrics = dict(trainer.callback_metrics)
        rates = self._learning_rates or learning_rates(trainer.optimizers)
        samples, self._samples = self._samples * trainer.world_size, 0
        self._ended_epoch = _EndedEpoch(trainer.current_epoch + 1, trainer.global_step, metrics, samples, rates)
        return self._new_metrics(metrics)

    def report(self, trainer: Any, *, read_late_metrics: bool = True) -> tuple[int, Mapping[str, SupportsFloat]] | None:
        """Report the epoch that has ended, if it is not reported yet.

        Args:
            trainer: Whose.
            read_late_metrics: Whether metrics that were logged since may be read; after a failure another rank may be
                gone.

        Returns:
            Its number and its metrics; None where there is none to report.
        """
        if (ended := self._ended_epoch) is None:
            return None
        metrics = {**ended.metrics, **trainer.callback_metrics} if read_late_metrics else ended.metrics
        fresh = self._new_metrics(metrics)
        self._ended_epoch, self._reported_metrics = None, metrics
        if trainer.is_global_zero:
            self._reporter.end_epoch(
                ended.number, fresh, step=ended.step, samples=ended.samples, learning_rates=ended.learning_rates
            )
        return ended.number, fresh

    def _new_metrics(self, metrics: Mapping[str, SupportsFloat]) -> dict[str, SupportsFloat]:
        """What the present epoch logged: the Trainer goes on telling the last value of a metric that it did not."""
        return drop_step_and_epoch_duplicates(
            {name: value for name, value in metrics.items() if value is not self._reported_metrics.get(name)}
        )


def drop_step_and_epoch_duplicates(metrics: Mapping[str, SupportsFloat]) -> dict[str, SupportsFloat]:
    """Leave out ``loss_step`` and ``loss_epoch`` beside ``loss``: Lightning's other names for the same metric."""
    twins = {f"{name}{suffix}" for name in metrics for suffix in ("_step", "_epoch")}
    return {name: value for name, value in metrics.items() if name not in twins}


def learning_rates(optimizers: list[Any]) -> dict[str, float]:
    """The learning rates by optimizer and group, named as Lightning's LearningRateMonitor names them."""
    rates: dict[str, Any] = {}
    for optimizer in optimizers:
        kind = f"lr-{type(optimizer).__name__}"
        same = sum(name == kind or name.startswith((f"{kind}-", f"{kind}/pg1")) for name in rates)
        name = f"{kind}-{same}" if same else kind
        groups = optimizer.param_groups
        for number, group in enumerate(groups, 1):
            rates[name if len(groups) == 1 else f"{name}/pg{number}"] = group.get("lr")
    return extract_floats(rates)[0]  # some find their rate themselves, and hold None


def count_samples(batch: object) -> int:
    """How many samples a batch has: the length of the first thing in it that has a shape; 0 where nothing has."""
    try:
        while not hasattr(batch, "shape"):
            if isinstance(batch, Mapping):
                batch = next(iter(batch.values()), None)
            elif isinstance(batch, (list, tuple)) and batch:
                batch = batch[0]
            else:
                return 0
        return int(batch.shape[0]) if batch.shape else 1
    except Exception:  # noqa: BLE001 - a batch may be of any class; a nested tensor raises when asked for its shape
        return 0


def _step_metrics(trainer: Any) -> Mapping[str, SupportsFloat]:
    """What the step logged. ``trainer.callback_metrics`` has old values of validations among them, and costs more."""
    results = getattr(trainer, "_results", None)
    found: Mapping[str, SupportsFloat] = {} if results is None else results.metrics(True)["callback"]
    return found


class StageTracker:
    """Follows the stages of one Trainer. Metrics are read on every rank, since that may make them meet.

    Args:
        reporter: What is told, on rank zero.
    """

    def __init__(self, reporter: TrainingReporter) -> None:
        self._reporter = reporter
        self._previous_metrics: Mapping[str, object] = {}
        self._started_at = 0.0
        self._ended_stage: tuple[str, float, dict[str, SupportsFloat]] | None = None

    def begin(self, trainer: Any) -> None:
        """A stage begins."""
        self._previous_metrics, self._started_at, self._ended_stage = dict(trainer.callback_metrics), monotonic(), None

    def end(self, trainer: Any, stage: str) -> None:
        """A stage has ended: ``validate``, ``test`` or ``predict``; the sanity check is none."""
        if trainer.sanity_checking:
            return
        metrics = trainer.callback_metrics
        fresh = drop_step_and_epoch_duplicates(
            {name: value for name, value in metrics.items() if value is not self._previous_metrics.get(name)}
        )
        if trainer.state.fn != "fit":
            self._ended_stage = (stage, monotonic() - self._started_at, fresh)
        elif trainer.is_global_zero and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            # the epoch's own line will have the last of its validations alone
            self._reporter.end_validation(trainer.global_step, trainer.current_epoch + 1, fresh)

    def report(self, trainer: Any) -> None:
        """Tell the stage that ended beside the fits, if one did."""
        ended, self._ended_stage = self._ended_stage, None
        if ended is not None and trainer.is_global_zero:
            stage, seconds, metrics = ended
            self._reporter.end_stage(stage, metrics, seconds=seconds, step=trainer.global_step or None)
