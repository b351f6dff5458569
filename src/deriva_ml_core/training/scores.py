"""Which metric tells the best epoch, and which of two of its values is better."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Score", "larger_is_better", "monitored"]

_LARGER = re.compile(
    r"acc|accuracy|auc|auroc|f1|fbeta|fmeasure|precision|recall|score|iou|jaccard|dice|map|ndcg|psnr|ssim|bleu|rouge|"
    r"r2|kappa|mcc|reward|return|correct|hits|top\d+",
)
_USUAL = ("val_loss", "loss", "train_loss")


@dataclass(frozen=True)
class Score:
    """One value of the metric that is watched.

    Args:
        name: The metric.
        value: Its value.
        larger: Whether larger values are better.
    """

    name: str
    value: float
    larger: bool

    def beats(self, other: Score | None) -> bool:
        """Whether it is better than another; one of another metric counts as none, and NaN never is better."""
        if math.isnan(self.value):
            return False
        if other is None or other.name != self.name or math.isnan(other.value):
            return True
        return self.value > other.value if self.larger else self.value < other.value


def larger_is_better(name: str) -> bool:
    """Whether a metric of that name is one of those of which more is better; losses and errors are not."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    return not {"loss", "error", "err"} & set(words) and any(_LARGER.fullmatch(word) for word in words)


def monitored(metrics: Mapping[str, float], monitor: str | None, mode: str | None) -> Score | None:
    """The score of an epoch.

    Args:
        metrics: The epoch's values by name.
        monitor: The metric; None for the first there is of ``val_loss``, ``loss``, ``train_loss`` and any other loss.
        mode: ``min`` or ``max``; None to tell by the name.

    Returns:
        None where the epoch has no such metric.
    """
    names = (monitor,) if monitor else (*_USUAL, *(name for name in sorted(metrics) if "loss" in name.lower()))
    name = next((name for name in names if name in metrics), None)
    if name is None:
        return None
    return Score(name, metrics[name], larger_is_better(name) if mode is None else mode == "max")
