"""Direction of metrics by name, and the metrics that have no best value."""

from __future__ import annotations

import inspect
import re
from importlib import import_module

import pytest

from deriva_ml_core.metric_modes import has_best, metric_mode, update_summaries
from deriva_ml_core.models import Progress

LARGER = re.findall(
    r"\S+",
    """
    val_acc val_acc1 acc@5 top5 top_5 train/top1_acc MulticlassAccuracy val_MulticlassAccuracy
    BinaryAUROC val_auc roc_auc pr_auc BinaryF1Score f1 f1_macro val/f1 f_beta FBetaScore precision
    recall recall@20 sensitivity val_sensitivity specificity mIoU val_mIoU iou jaccard dice
    val_dice_score mAP mAP@0.5:0.95 metrics/mAP50-95(B) bbox_mAP map_50 average_precision ap50
    pearson val_pearson pearsonr spearman_rho kendall_tau PearsonCorrCoef correlation r2 R2Score
    explained_variance c_index concordance kappa cohen_kappa mcc matthews_corrcoef balanced_accuracy
    success_rate rollout/success_rate win_rate reward episode_reward rollout/ep_rew_mean ep_return
    mean_reward BLEU sacrebleu eval_bleu rouge1 rougeL eval_rougeLsum ROUGE METEOR cider exact_match
    eval/em squad_f1 pass@1 psnr ssim ms_ssim SSIM stoi pesq si_sdr snr ndcg@10 mrr hit@10 hit_rate
    silhouette_score nmi ari log_likelihood elbo mutual_information InceptionScore cosine_similarity
    true_positives lddt fitness neg_mean_squared_error neg_log_loss val_neg_root_mean_squared_error
    panoptic_quality chrf bert_score test_auprc youden
    """,
)
SMALLER = re.findall(
    r"\S+",
    """
    loss val_loss gan/g_loss val/loss_epoch losses f1_error score_loss dice_loss reward_loss
    precision_loss mae rmse val_rmse mse msle mape smape MeanSquaredError MeanAbsoluteError log_loss
    nll negative_log_likelihood neg_log_likelihood cross_entropy binary_crossentropy
    CategoricalCrossentropy bce perplexity val_ppl bits_per_byte brier brier_score val_brier_score
    crps crps_score fid fid_score FrechetInceptionDistance kid KernelInceptionDistance lpips
    LearnedPerceptualImagePatchSimilarity niqe wer WordErrorRate cer eer error_rate word_error_rate
    err top5_error ece CalibrationError expected_calibration_error hausdorff hd95 assd kl_divergence
    KLDivergence wasserstein_distance HammingDistance regret fpr false_positive_rate false_negatives
    davies_bouldin hinge squared_hinge poisson epe
    """,
)
UNKNOWN = ["gain", "odd", "objective", "wobble", "accumulated", "entropy", "ratio", "std", "x", "", "é", "rate"]
WITHOUT_BEST = re.findall(
    r"\S+",
    """
    learning_rate lr lr-Adam lr-Adam/pg1 epoch step global_step throughput train_samples_per_second
    eval_runtime runtime tokens_per_second steps_per_second time epoch_time duration batch_size
    grad_norm peak_memory gpu_mem fps eval_samples_per_second train_runtime
    """,
)


@pytest.mark.parametrize("name", LARGER)
def test_larger_is_better(name: str) -> None:
    """The field's accuracies, correlations, overlaps, rewards and scores are better when larger."""
    assert (metric_mode(name), has_best(name)) == ("max", True)


@pytest.mark.parametrize("name", SMALLER)
def test_smaller_is_better(name: str) -> None:
    """The field's losses, errors, distances and improper scores are better when smaller."""
    assert (metric_mode(name), has_best(name)) == ("min", True)


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown(name: str) -> None:
    """An unknown name has no direction instead of a guessed one."""
    assert (metric_mode(name), has_best(name)) == (None, True)


@pytest.mark.parametrize("name", WITHOUT_BEST)
def test_without_best(name: str) -> None:
    """Learning rates, counters, throughputs and durations have no best value."""
    assert (metric_mode(name), has_best(name)) == (None, False)
    summary = update_summaries({}, Progress(epoch=1, metrics={name: 0.5}))["fit", name]
    assert (summary.last, summary.best, summary.best_at, summary.larger_is_better) == (0.5, None, None, None)


def test_torchmetrics_agree() -> None:
    """The direction of each metric class of torchmetrics by its name is the one that the class states.

    torchmetrics states the opposite for two classes, against its own documentation: an ideal image has no spectral
    distortion, and an ideal transcript preserves all information.
    """
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    classes = {
        name: kind
        for module in ("classification", "regression", "image", "text", "audio", "retrieval", "segmentation", "nominal")
        for name, kind in vars(import_module(f"torchmetrics.{module}")).items()
        if inspect.isclass(kind) and isinstance(getattr(kind, "higher_is_better", None), bool)
    }
    assert len(classes) > 60
    wrong = {name for name, kind in classes.items() if metric_mode(name) == ("min" if kind.higher_is_better else "max")}
    assert wrong <= {"SpectralDistortionIndex", "WordInfoPreserved"}
    unknown = {name for name in classes if metric_mode(name) is None}
    assert len(unknown) <= len(classes) / 10, unknown


def test_keras_agrees() -> None:
    """The direction of each Keras metric by its name is the one that Keras' own callbacks use."""
    keras = pytest.importorskip("keras", reason="keras is not installed")
    directions = {}
    for kind in vars(keras.metrics).values():
        if inspect.isclass(kind) and issubclass(kind, keras.metrics.Metric):
            try:
                metric = kind()
            except (TypeError, ValueError, NotImplementedError):
                continue  # the class needs arguments
            directions[metric.name] = getattr(metric, "_direction", None)
    known = {name: "max" if each == "up" else "min" for name, each in directions.items() if each in ("up", "down")}
    assert len(known) > 20
    assert {name for name, mode in known.items() if metric_mode(name) not in (mode, None)} == set()
