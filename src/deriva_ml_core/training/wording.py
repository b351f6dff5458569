"""How a training reads in a status."""

from __future__ import annotations

from collections.abc import Mapping

from deriva_ml_core.models import Progress

__all__ = ["format_duration", "epoch_message", "stage_message", "step_message"]

MAX_STATUS_METRICS = 8
"""Metrics that a status names; the others are in its `Progress` and in the metrics file."""

STAGE_NAMES: Mapping[str, str] = {"fit": "Fit", "validate": "Validation", "test": "Test", "predict": "Prediction"}


def epoch_message(progress: Progress, seconds: float, left: float | None) -> str:
    """Say how an epoch went, such as ``Epoch 3/10: loss=0.1234, val_loss=0.1456 (12.3 s, 2 min left)``.

    Args:
        progress: The epoch and its values.
        seconds: How long the epoch took.
        left: Seconds until the last epoch ends; None where nobody knows, or no epoch is left.
    """
    to_go = "" if left is None else f", {format_duration(left, digits=0)} left"
    return f"{_format_epoch(progress)}{_format_metrics(progress)} ({format_duration(seconds)}{to_go})"


def step_message(progress: Progress) -> str:
    """Say how a step went, such as ``Epoch 3/10, step 1200: loss=0.1234``."""
    return f"{_format_epoch(progress)}, step {progress.step}{_format_metrics(progress)}"


def stage_message(progress: Progress, seconds: float) -> str:
    """Say how a stage beside the fit went, such as ``Test: test_accuracy=0.98 (1.2 s)``."""
    return f"{STAGE_NAMES.get(progress.stage, progress.stage)}{_format_metrics(progress)} ({format_duration(seconds)})"


def _format_epoch(progress: Progress) -> str:
    return f"Epoch {progress.epoch}{'' if progress.epochs is None else f'/{progress.epochs}'}"


def _format_metrics(progress: Progress) -> str:
    training_first = sorted(progress.metrics.items(), key=lambda metric: metric[0].startswith("val"))
    told = [f"{name}={value:.4g}" for name, value in training_first]
    if len(told) > MAX_STATUS_METRICS:
        told = [*told[:MAX_STATUS_METRICS], f"{len(told) - MAX_STATUS_METRICS} more"]
    return f": {', '.join(told)}" if told else ""


def format_duration(seconds: float, *, digits: int = 1) -> str:
    """A length of time, such as ``12.3 s``, ``2 min``, ``3 h 20 min`` or ``2 d 4 h``.

    Args:
        seconds: How long.
        digits: After the point, where it is less than a minute.
    """
    if round(seconds, digits) < 60:
        return f"{seconds:.{digits}f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    days, hours = divmod(hours, 24)
    units = ((days, "d"), (hours, "h"), (minutes, "min"))
    first = next(place for place, (number, _) in enumerate(units) if number)
    return " ".join(f"{number} {unit}" for number, unit in units[first : first + 2] if number)
