"""Epochs, steps and stages of a Trainer, reported when their metrics are complete."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, SupportsFloat

from deriva_ml_core.metric_modes import MetricMode
from deriva_ml_core.training import TrainingReporter
from deriva_ml_core.training.metrics_file import extract_floats

__all__ = ["EpochTracker", "StageTracker", "find_position", "drop_step_and_epoch_duplicates"]


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _EndedEpoch:
    """An epoch that has ended; the module's ``on_train_epoch_end`` may still log metrics."""

    number: int
    step: int
    metrics: Mapping[str, SupportsFloat]
    samples: int
    learning_rates: Mapping[str, float]


class EpochTracker:
    """Tracks the epochs and steps of one fit.

    Metrics are read on every rank, since reading may synchronise the ranks. Rank 0 reports.

    Args:
        reporter: Reporter of the training.
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
        """Begin a fit."""
        self._ended_epoch, self._reported_metrics, self._learning_rates, self._samples = None, {}, {}, 0
        self._step = trainer.global_step

    def begin_epoch(self, trainer: Any) -> None:
        """Begin an epoch and read its learning rates."""
        self._learning_rates = learning_rates(trainer.optimizers)

    def end_batch(self, trainer: Any, batch: object) -> int | None:
        """End a batch and report its step.

        Returns:
            The step that ended with the batch; None if the batch only accumulated gradients.
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
        """End an epoch; `report` reports it later.

        Returns:
            Metrics that the epoch has logged so far.
        """
        metrics = dict(trainer.callback_metrics)
        add_metric_modes(self._reporter, trainer)
        rates = self._learning_rates or learning_rates(trainer.optimizers)
        samples, self._samples = self._samples * trainer.world_size, 0
        self._ended_epoch = _EndedEpoch(trainer.current_epoch + 1, trainer.global_step, metrics, samples, rates)
        return self._new_metrics(metrics)

    def report(self, trainer: Any, *, read_late_metrics: bool = True) -> tuple[int, Mapping[str, SupportsFloat]] | None:
        """Report the epoch that has ended, unless it has been reported.

        Args:
            trainer: The Trainer.
            read_late_metrics: Whether to read metrics logged after the end of the epoch. After a failure this may
                hang, since another rank may have exited.

        Returns:
            Number and metrics of the epoch; None if there is none to report.
        """
        if (ended := self._ended_epoch) is None:
            return None
        metrics = {**ended.metrics, **trainer.callback_metrics} if read_late_metrics else ended.metrics
        new_metrics = self._new_metrics(metrics)
        self._ended_epoch, self._reported_metrics = None, metrics
        if trainer.is_global_zero:
            self._reporter.end_epoch(
                ended.number, new_metrics, step=ended.step, samples=ended.samples, learning_rates=ended.learning_rates
            )
        return ended.number, new_metrics

    def _new_metrics(self, metrics: Mapping[str, SupportsFloat]) -> dict[str, SupportsFloat]:
        """Return the metrics logged in this epoch; the Trainer also returns old values of metrics not logged in it."""
        return drop_step_and_epoch_duplicates(
            {name: value for name, value in metrics.items() if value is not self._reported_metrics.get(name)}
        )


def find_position(trainer: Any) -> dict[str, int | None]:
    """Return the step of a Trainer, and the number of its epoch within a fit, from 1."""
    step = int(trainer.global_step)
    if trainer.state.fn != "fit":
        return {"step": step, "epoch": None}
    epoch = int(trainer.current_epoch) + 1
    is_past_end = trainer.max_epochs is not None and 0 < trainer.max_epochs < epoch  # at the end of the fit
    return {"step": step, "epoch": epoch - is_past_end}


def drop_step_and_epoch_duplicates(metrics: Mapping[str, SupportsFloat]) -> dict[str, SupportsFloat]:
    """Drop ``loss_step`` and ``loss_epoch`` if there is ``loss``: Lightning's other names for the same metric."""
    duplicates = {f"{name}{suffix}" for name in metrics for suffix in ("_step", "_epoch")}
    return {name: value for name, value in metrics.items() if name not in duplicates}


def learning_rates(optimizers: list[Any]) -> dict[str, float]:
    """Return the learning rates by optimizer and group, named as in Lightning's LearningRateMonitor."""
    rates: dict[str, Any] = {}
    for optimizer in optimizers:
        kind = f"lr-{type(optimizer).__name__}"
        same = sum(name == kind or name.startswith((f"{kind}-", f"{kind}/pg1")) for name in rates)
        name = f"{kind}-{same}" if same else kind
        groups = optimizer.param_groups
        for number, group in enumerate(groups, 1):
            rates[name if len(groups) == 1 else f"{name}/pg{number}"] = group.get("lr")
    return extract_floats(rates)[0]  # drops None, the rate of optimizers that choose it themselves


def count_samples(batch: object) -> int:
    """Return the number of samples in a batch, from the first value with a shape; 0 if there is none."""
    try:
        while not hasattr(batch, "shape"):
            if isinstance(batch, Mapping):
                batch = next(iter(batch.values()), None)
            elif isinstance(batch, (list, tuple)) and batch:
                batch = batch[0]
            else:
                return 0
        return int(batch.shape[0]) if batch.shape else 1
    except Exception:  # noqa: BLE001 - a batch may be of any class, and the shape of a nested tensor raises
        return 0


def _step_metrics(trainer: Any) -> Mapping[str, SupportsFloat]:
    """Return the metrics of a step; ``trainer.callback_metrics`` is slower and has old values of validations."""
    results = getattr(trainer, "_results", None)
    metrics: Mapping[str, SupportsFloat] = {} if results is None else results.metrics(True)["callback"]
    return metrics


class StageTracker:
    """Tracks validations, tests and predictions of one Trainer.

    Metrics are read on every rank, since reading may synchronise the ranks. Rank 0 reports.

    Args:
        reporter: Reporter of the training.
    """

    def __init__(self, reporter: TrainingReporter) -> None:
        self._reporter = reporter
        self._previous_metrics: Mapping[str, object] = {}
        self._started_at = 0.0
        self._ended_stage: tuple[str, float, dict[str, SupportsFloat]] | None = None
        self._is_unreported = False
        """Whether a validation within a fit has run to its end, and its metrics are not reported."""

    def begin(self, trainer: Any) -> None:
        """Begin a stage."""
        self._previous_metrics, self._started_at, self._ended_stage = dict(trainer.callback_metrics), monotonic(), None
        self._is_unreported = False

    def end_batches(self, trainer: Any) -> None:
        """End the last batch of a validation; callbacks that are called before this one may raise in its end."""
        self._is_unreported = trainer.state.fn == "fit" and not trainer.sanity_checking

    def end_epoch(self) -> None:
        """End an epoch, whose metrics include those of its last validation."""
        self._is_unreported = False

    def end(self, trainer: Any, stage: str) -> None:
        """End a stage: ``validate``, ``test`` or ``predict``; the sanity check is ignored."""
        if trainer.sanity_checking:
            return
        new_metrics = self._new_metrics(trainer.callback_metrics)
        if trainer.state.fn != "fit":
            self._ended_stage = (stage, monotonic() - self._started_at, new_metrics)
        elif not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._report_validation(trainer, new_metrics)  # the metrics of the epoch include only its last validation

    def report_interrupted(self, trainer: Any) -> None:
        """Report the last validation of an epoch that an exception ends, such as that of a pruner.

        The metrics are those that the Trainer has computed. To compute others may hang, since another rank may have
        exited.
        """
        if self._is_unreported:
            self._report_validation(trainer, self._new_metrics(trainer._logger_connector._callback_metrics))

    def _report_validation(self, trainer: Any, metrics: Mapping[str, SupportsFloat]) -> None:
        self._is_unreported = False
        if trainer.is_global_zero:
            add_metric_modes(self._reporter, trainer)
            self._reporter.end_validation(trainer.global_step, trainer.current_epoch + 1, metrics)

    def _new_metrics(self, metrics: Mapping[str, SupportsFloat]) -> dict[str, SupportsFloat]:
        """Return the metrics that were logged since the stage began."""
        return drop_step_and_epoch_duplicates(
            {name: value for name, value in metrics.items() if value is not self._previous_metrics.get(name)}
        )

    def report(self, trainer: Any) -> None:
        """Report the stage that ended outside a fit, if there is one."""
        ended, self._ended_stage = self._ended_stage, None
        if ended is not None and trainer.is_global_zero:
            stage, seconds, metrics = ended
            self._reporter.end_stage(stage, metrics, seconds=seconds, step=trainer.global_step or None)


def add_metric_modes(reporter: TrainingReporter, trainer: Any) -> None:
    """Add the modes of the torchmetrics that the training and its validation have logged."""
    try:
        reporter.monitor.add_framework_modes(dict(_read_metric_modes(trainer)))
    except Exception:  # Lightning has no public access to the metric objects
        log.debug("Failed to read the modes of the metrics.", exc_info=True)


def _read_metric_modes(trainer: Any) -> Iterator[tuple[str, MetricMode]]:
    epoch_loop = trainer.fit_loop.epoch_loop
    for results in (epoch_loop._results, epoch_loop.val_loop._results):
        for result in results.values():
            larger = None if result.is_tensor else getattr(result.value, "higher_is_better", None)
            if larger is not None:
                name, _ = results._forked_name(result, on_step=False)
                yield name, "max" if larger else "min"
