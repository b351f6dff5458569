"""Which metric tells the best epoch, which of two of its values is better, and where each metric of a run stands."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deriva_ml_core.models import MetricSummary, Progress

__all__ = ["MonitoredValue", "larger_is_better", "select_monitored", "update_summaries"]

_LARGER_IS_BETTER_PATTERN = (  # a text, since to compile it would cost every import of ours a millisecond
    r"acc|accuracy|auc|auroc|f1|fbeta|fmeasure|precision|recall|score|iou|jaccard|dice|map|ndcg|psnr|ssim|bleu|rouge|"
    r"r2|kappa|mcc|reward|return|correct|hits|top\d+"
)
_DEFAULT_MONITORS = ("val_loss", "loss", "train_loss")


@dataclass(frozen=True)
class MonitoredValue:
    """One value of the metric that is watched.

    Args:
        name: The metric.
        value: Its value.
        larger_is_better: Whether larger values are better.
    """

    name: str
    value: float
    larger_is_better: bool

    def is_better_than(self, other: MonitoredValue | None) -> bool:
        """Whether it is better than another; one of another metric counts as none, and NaN never is better."""
        if math.isnan(self.value):
            return False
        if other is None or other.name != self.name or math.isnan(other.value):
            return True
        return self.value > other.value if self.larger_is_better else self.value < other.value


def larger_is_better(name: str) -> bool:
    """Whether a metric of that name is one of those of which more is better; losses and errors are not."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    return not {"loss", "error", "err"} & set(words) and any(
        re.fullmatch(_LARGER_IS_BETTER_PATTERN, word) for word in words
    )


def select_monitored(metrics: Mapping[str, float], monitor: str | None, mode: str | None) -> MonitoredValue | None:
    """The score of an epoch.

    Args:
        metrics: The epoch's values by name.
        monitor: The metric; None for the first there is of ``val_loss``, ``loss``, ``train_loss`` and any other loss.
        mode: ``min`` or ``max``; None to tell by the name.

    Returns:
        None where the epoch has no such metric.
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
    """Where the metrics stand of which a status tells.

    Args:
        summaries: Where the metrics stood before, by stage and name.
        progress: What the status tells.
    """
    found = {}
    for name, value in progress.metrics.items():
        key = (progress.stage, name)
        values = [(progress.bests or {}).get(name), (value, progress.epoch)]
        found[key] = _update_summary(summaries.get(key), key, (progress.modes or {}).get(name), filter(None, values))
    return found


def _update_summary(
    previous: MetricSummary | None, key: tuple[str, str], mode: str | None, values: Iterable[tuple[float, int | None]]
) -> MetricSummary:
    """Where a metric stands after further values, each with its epoch, in their order."""
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
