"""Direction of metrics: whether larger is better, which metric is monitored, and summaries of a run's metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deriva_ml_core.models import MetricSummary, Progress

__all__ = ["MonitoredValue", "larger_is_better", "select_monitored", "update_summaries"]

_LARGER_IS_BETTER_PATTERN = (  # not compiled at import, which would cost a millisecond
    r"acc|accuracy|auc|auroc|f1|fbeta|fmeasure|precision|recall|score|iou|jaccard|dice|map|ndcg|psnr|ssim|bleu|rouge|"
    r"r2|kappa|mcc|reward|return|correct|hits|top\d+"
)
_DEFAULT_MONITORS = ("val_loss", "loss", "train_loss")


@dataclass(frozen=True)
class MonitoredValue:
    """Value of the monitored metric.

    Args:
        name: Name of the metric.
        value: Value of the metric.
        larger_is_better: Whether larger values are better.
    """

    name: str
    value: float
    larger_is_better: bool

    def is_better_than(self, other: MonitoredValue | None) -> bool:
        """Whether this value is better than another; NaN never is, and a value of another metric is ignored."""
        if math.isnan(self.value):
            return False
        if other is None or other.name != self.name or math.isnan(other.value):
            return True
        return self.value > other.value if self.larger_is_better else self.value < other.value


def larger_is_better(name: str) -> bool:
    """Whether the name is that of a metric where larger is better, such as an accuracy; losses and errors are not."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    return not {"loss", "error", "err"} & set(words) and any(
        re.fullmatch(_LARGER_IS_BETTER_PATTERN, word) for word in words
    )


def select_monitored(metrics: Mapping[str, float], monitor: str | None, mode: str | None) -> MonitoredValue | None:
    """Return the monitored value of an epoch.

    Args:
        metrics: Values of the epoch by metric name.
        monitor: Name of the metric; None for the first one present of ``val_loss``, ``loss``, ``train_loss`` and any
            other loss.
        mode: ``min`` or ``max``; None to decide by the name.

    Returns:
        The value; None if the epoch has no such metric.
    """
    names = (
        (monitor,) if monitor else (*_DEFAULT_MONITORS, *(name for name in sorted(metrics) if "loss" in name.lower()))
    )
    name = next((name for name in names if name in metrics), None)
    if name is None:
        return None
    return MonitoredValue(name, metrics[name], larger_is_better(name) if mode is None else mode == "max")


def update_summaries(
    summaries: Mapping[tuple[str, str], MetricSummary], progress: Progress
) -> dict[tuple[str, str], MetricSummary]:
    """Return the summaries of the metrics in a status, updated with its values.

    Args:
        summaries: Summaries so far, by stage and metric name.
        progress: Progress reported with the status.
    """
    updated = {}
    for name, value in progress.metrics.items():
        key = (progress.stage, name)
        values = [(progress.bests or {}).get(name), (value, progress.epoch)]
        updated[key] = _update_summary(summaries.get(key), key, (progress.modes or {}).get(name), filter(None, values))
    return updated


def _update_summary(
    previous: MetricSummary | None, key: tuple[str, str], mode: str | None, values: Iterable[tuple[float, int | None]]
) -> MetricSummary:
    """Return the summary of a metric after further values, each with its epoch, in order."""
    stage, name = key
    larger = previous.larger_is_better if previous else larger_is_better(name)
    larger = larger if mode is None else mode == "max"
    last, best, best_at = (previous.last, previous.best, previous.best_at) if previous else (None, None, None)
    for value, epoch in values:
        last = value if math.isfinite(value) else None
        if last is not None and (
            best is None or MonitoredValue(name, last, larger).is_better_than(MonitoredValue(name, best, larger))
        ):
            best, best_at = last, epoch
    return MetricSummary(stage=stage, name=name, last=last, best=best, best_at=best_at, larger_is_better=larger)
