"""Direction of metrics by name, the metric that decides which checkpoint is the best, and summaries of metrics."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from deriva_ml_core.models import MetricSummary, Progress

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = [
    "MetricMode",
    "Monitor",
    "MonitoredValue",
    "choose_metric",
    "has_best",
    "is_loss",
    "is_validation",
    "metric_mode",
    "split_name",
    "update_summaries",
]

log = logging.getLogger(__name__)

MetricMode = Literal["min", "max"]

# Terms of metric names as regular expressions, words joined by "_". Sources: the metrics of torchmetrics 1.x with
# their `higher_is_better`, those of Keras 3 with their `_direction`, the scorers of scikit-learn, and the names that
# ultralytics, timm, mmdetection, transformers, stable-baselines3 and lm-evaluation-harness log.
_SMALLER_IS_BETTER = r"""
    loss(es)? error(s)? err(s)? lost cost penalty regret violation(s)? mae mse rmse rmsd rmsle msle mape smape wmape
    mase nrmse epe ade fde log_?cosh hinge poisson pinball deviance distance divergence dissimilarity kl kld jsd
    texture_similarity nll negative_log_likelihood neg_log_likelihood (\w*)?cross_?entropy xent bce ce logloss brier
    crps ece mce ranked_probability_score perplexity ppl bpb bpc bpd bits_per_(byte|char|character|dim|dimension)
    wer cer mer wil (word|char|character|match|token|phone|phoneme)_error_rate ter edit levenshtein
    translation_edit_rate fid kid frechet fvd fad lpips perceptual dists niqe brisque piqe mcd wasserstein emd
    hausdorff hd95 hd assd asd false_positives? false_negatives? fpr fnr fdr false_alarm(s)? miss_rate far frr eer
    fall_?out misclassification(s)? davies_bouldin inertia distortion_index spectral_angle spectral_angle_mapper sam
    ergas word_info_lost information_criterion aic bic hallucination(s)? toxicity
"""
_LARGER_IS_BETTER = r"""
    acc\d* accuracy\d* top_?\d+ correct auc\d* auroc auprc aupr aucpr roc prc f\d+ f_?beta f_?measure f_?score
    fmeasure precision\d* recall\d* sensitivity specificity tpr tnr ppv npv informedness youden g_?mean
    true_positives? true_negatives? score iou\d* miou\d* giou ciou intersection_over_union jaccard dice dsc overlap
    m?ap\d* m?ar\d* mean_ap average_precision panoptic_quality pq quality_index uqi vif psnrb? ms_?ssim ssim
    similarity cosine cosine_sim bleu\d* sacre_?bleu rouge\w* meteor cider spice chrf\d* bert_?score comet
    exact_match em squad mos pesq stoi si_?s[dn]r sdr snr noise_ratio distortion_ratio signal_to_\w+_ratio r2
    r_?squared explained_variance nse kge pearson\w* spearman\w* kendall\w* corr\d* corr_?coef correlation
    concordance ccc c_?index kappa matthews mcc cramers?_v tschuprows?_t theils?_u pearsons_contingency contingency
    likelihood ll elbo mutual_information nmi ari ami rand silhouette homogeneity completeness v_measure
    fowlkes_mallows calinski_harabasz dunn purity ndcg dcg mrr reciprocal_rank hit hits hit_rate lift pass_(at_)?\d+
    reward(s)? rew return(s)? win win_rate wins success(es)? success_rate fitness lddt plddt tm gdt
    word_info_preserved wip inception is_mean agreement fidelity hv hypervolume
"""
_WITHOUT_BEST = r"""
    lr learning_rates? epochs? steps? global_step iterations? iters? batch batches batch_size (num_)?samples tokens
    throughput (\w+_)?per_(second|sec|s|step|epoch|token|sample) fps qps flops runtime time seconds secs duration
    elapsed eta latency timestamp wall_?clock memory mem gpu_mem vram utili[sz]ation momentum weight_decay
    (grad|gradient|weight|param)_norm(s)? num_\w+ count
"""


_VALIDATION_WORDS = frozenset({"val", "valid", "validation", "eval", "evaluation", "dev", "holdout"})
_TRAINING_LOSSES = ("loss", "train_loss", "train/loss", "training_loss")
_BOTH_MODES: tuple[MetricMode, ...] = ("min", "max")


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

    @property
    def mode(self) -> MetricMode:
        """Whether the smallest or the largest value is the best."""
        return "max" if self.larger_is_better else "min"

    def is_better_than(self, other: MonitoredValue | None) -> bool:
        """Whether this value is better than another; NaN never is, and a value of another metric is ignored."""
        if math.isnan(self.value):
            return False
        if other is None or other.name != self.name or math.isnan(other.value):
            return True
        return self.value > other.value if self.larger_is_better else self.value < other.value


class Monitor:
    """The metric that decides which checkpoint is the best, and its direction.

    Without a configured metric, a loss decides provisionally. The first validation metric makes the choice final: the
    metric is never chosen anew, also if later epochs have no validation. Several fits share the choice.

    Args:
        name: Name of the metric, set by the user; None to choose it.
        mode: ``min`` or ``max``, set by the user; None to use the mode of the framework, or that of a known metric.
    """

    def __init__(self, name: str | None = None, mode: MetricMode | None = None) -> None:
        self._configured_name = name
        self._configured_mode = mode
        self._framework_name: str | None = None
        self._framework_modes: dict[str, MetricMode] = {}
        self._name = name
        self._is_final = name is not None
        self._has_logged_choice = False

    @property
    def name(self) -> str | None:
        """Name of the metric; None before a loss or a validation metric is logged."""
        return self._name

    @property
    def is_final(self) -> bool:
        """Whether the metric stays the same for all later epochs and fits."""
        return self._is_final

    @property
    def mode(self) -> MetricMode | None:
        """Whether the smallest or the largest value is the best; None if unknown."""
        if self._name is None:
            return None
        if self._configured_mode is not None:
            return self._configured_mode
        return self._framework_modes.get(self._name) or metric_mode(self._name)

    @property
    def modes(self) -> tuple[MetricMode, ...]:
        """The mode, or both modes if it is unknown."""
        mode = self.mode
        return _BOTH_MODES if mode is None else (mode,)

    def set_framework_monitor(self, name: str) -> None:
        """Set the metric that a callback of the framework monitors; a metric set by the user takes precedence."""
        self._framework_name = name

    def add_framework_modes(self, modes: Mapping[str, MetricMode]) -> None:
        """Add modes that the framework knows, by metric name; the user's mode takes precedence."""
        self._framework_modes |= modes

    def known_modes(self, metrics: Mapping[str, float]) -> dict[str, MetricMode]:
        """Return the modes of metrics that their names do not imply."""
        modes = {name: mode for name in metrics if (mode := self._framework_modes.get(name)) is not None}
        if self._name is not None and self._is_final and self._name in metrics and (mode := self.mode) is not None:
            modes[self._name] = mode
        return {name: mode for name, mode in modes.items() if mode != metric_mode(name)}

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Choose the metric from those that an epoch or a validation has logged, unless the choice is final."""
        if not self._is_final:
            name = self._find_final(metrics)
            self._is_final = name is not None
            self._name = name or self._name or _find_loss(metrics)
        if self._is_final and self._name in metrics:
            self.log_choice()

    def scores(self, metrics: Mapping[str, float]) -> tuple[MonitoredValue, ...]:
        """Return the monitored value: one if the mode is known, else one for each mode, none if it is not logged."""
        self.observe(metrics)
        if self._name is None or self._name not in metrics:
            return ()
        return tuple(MonitoredValue(self._name, metrics[self._name], mode == "max") for mode in self.modes)

    def log_choice(self) -> None:
        """Log once which metric decides; warn if its mode is unknown."""
        if self._has_logged_choice or self._name is None:
            return
        self._has_logged_choice = True
        if self.mode is None:
            log.warning(
                "The metric %r decides which checkpoint is the best, but it is unknown whether smaller or larger "
                "values are better. Pass mode='min' or mode='max'. Until then, the checkpoints with the smallest and "
                "with the largest value are kept in addition to the last.",
                self._name,
            )
        else:
            direction = "smaller" if self.mode == "min" else "larger"
            log.info("The metric %r decides which checkpoint is the best (%s is better).", self._name, direction)

    def state(self) -> dict[str, JsonValue]:
        """Return the choice as JSON, to be stored in a checkpoint of the framework."""
        return {} if self._name is None else {"name": self._name, "final": self._is_final, "mode": self.mode}

    def to_summary(self) -> dict[str, JsonValue] | None:
        """Return the choice for the training summary; None if no metric is chosen."""
        return None if self._name is None else {"metric": self._name, "mode": self.mode}

    def restore(self, name: str, *, is_final: bool, mode: MetricMode | None) -> None:
        """Restore the choice of an earlier part of the training, unless a final choice exists."""
        if self._is_final:
            return
        self._name, self._is_final = name, is_final
        if mode is not None and metric_mode(name) != mode:
            self._framework_modes.setdefault(name, mode)

    def _find_final(self, metrics: Mapping[str, float]) -> str | None:
        """Return the framework's metric if it is logged, else the validation metric that decides, if any."""
        if self._framework_name is not None and self._framework_name in metrics:
            return self._framework_name
        return _find_validation(metrics, self._framework_modes)


def choose_metric(names: Iterable[str]) -> str | None:
    """Return the metric that decides which run is the best, by the rule for checkpoints; None if there is none."""
    metrics = dict.fromkeys(names, 0.0)
    return _find_validation(metrics, {}) or _find_loss(metrics)


def _find_validation(metrics: Mapping[str, float], modes: Mapping[str, MetricMode]) -> str | None:
    """Return the validation metric that decides: a loss before a known metric before others, the shortest name first.

    Args:
        metrics: Values by name.
        modes: Modes that the framework knows.
    """

    def precedence(name: str) -> tuple[bool, bool, int, str]:
        is_known = name in modes or metric_mode(name) is not None
        return (not is_loss(name), not is_known, len(split_name(name)), name)

    return min((name for name in metrics if is_validation(name) and has_best(name)), key=precedence, default=None)


def metric_mode(name: str) -> MetricMode | None:
    """Return ``min`` or ``max`` by the name of a metric: which value is the best; None if the name does not imply it.

    Words such as ``loss`` and ``error`` take precedence: ``f1_error`` and ``brier_score`` are smaller when better. A
    first word ``neg``, as of scikit-learn's scorers, reverses the mode.
    """
    return _mode_of(name)


@cache
def _mode_of(name: str) -> MetricMode | None:
    names = _joined_words(name)
    if any(_matches("min", each) for each in names):
        mode: MetricMode = "min"
    elif any(_matches("max", each) for each in names):
        mode = "max"
    else:
        return None
    is_negated = any(re.match(r"_(\w*_)?neg_", each) for each in names) and not _matches("nll", names[0])
    if is_negated:
        return "max" if mode == "min" else "min"
    return mode


def has_best(name: str) -> bool:
    """Whether a metric may have a best value; a learning rate, an epoch, a throughput and a duration have none."""
    return metric_mode(name) is not None or not any(_matches("none", each) for each in _joined_words(name))


def is_loss(name: str) -> bool:
    """Whether the name of a metric has the word loss."""
    return any("_loss_" in each or "_losses_" in each for each in _joined_words(name))


def is_validation(name: str) -> bool:
    """Whether the name is that of a validation metric, such as ``val_loss``, ``valid/acc``, ``loss/val``, ``evalLoss``.

    A word for validation counts at the start of the name or of a part after ``/`` or ``.``. It also counts at the end
    after the name of a known metric, since ``max_val`` and ``std_dev`` have another meaning.
    """
    for part in re.split(r"[/.]", name):
        words = split_name(part)
        if words and words[0] in _VALIDATION_WORDS:
            return True
        if len(words) > 1 and words[-1] in _VALIDATION_WORDS and metric_mode("_".join(words[:-1])) is not None:
            return True
    return False


def split_name(name: str) -> list[str]:
    """Return the words of a metric name in lower case, such as ``val`` and ``loss`` of ``val/loss`` and ``valLoss``."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+", name)]


def _joined_words(name: str) -> tuple[str, str]:
    """Return the words of a name joined and enclosed by "_", without and with splitting at capital letters."""
    lower = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return f"_{lower}_", f"_{'_'.join(split_name(name))}_"


@cache
def _pattern(kind: str) -> re.Pattern[str]:  # not compiled at import, which would cost a millisecond
    terms = {"min": _SMALLER_IS_BETTER, "max": _LARGER_IS_BETTER, "none": _WITHOUT_BEST}
    terms["nll"] = "neg_log_likelihood"
    return re.compile(f"_(?:{'|'.join(terms[kind].split())})(?=_)")


def _matches(kind: str, words: str) -> bool:
    return _pattern(kind).search(words) is not None


def _find_loss(metrics: Mapping[str, float]) -> str | None:
    """Return the name of the training loss, else the first one of any loss; None if there is none."""
    losses = [name for name in _TRAINING_LOSSES if name in metrics]
    return next(iter(losses), None) or min((name for name in metrics if is_loss(name)), default=None)


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
    previous: MetricSummary | None,
    key: tuple[str, str],
    mode: MetricMode | None,
    values: Iterable[tuple[float, int | None]],
) -> MetricSummary:
    """Return the summary of a metric after further values, each with its epoch, in order.

    A metric whose direction is unknown has no best value.
    """
    stage, name = key
    previous_mode = _summary_mode(previous)
    mode = mode or previous_mode or metric_mode(name)
    last, best, best_at = (previous.last, previous.best, previous.best_at) if previous else (None, None, None)
    for value, epoch in values:
        last = value if math.isfinite(value) else None
        if last is None or mode is None:
            continue
        larger = mode == "max"
        if best is None or MonitoredValue(name, last, larger).is_better_than(MonitoredValue(name, best, larger)):
            best, best_at = last, epoch
    larger_is_better = None if mode is None else mode == "max"
    return MetricSummary(
        stage=stage, name=name, last=last, best=best, best_at=best_at, larger_is_better=larger_is_better
    )


def _summary_mode(summary: MetricSummary | None) -> MetricMode | None:
    if summary is None or summary.larger_is_better is None:
        return None
    return "max" if summary.larger_is_better else "min"
