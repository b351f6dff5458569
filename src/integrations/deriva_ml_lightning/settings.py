"""Settings of a fit: model, data, optimizers, callbacks and Trainer, as plain values."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

__all__ = ["collect_settings"]

log = logging.getLogger(__name__)

TRAINER_ATTRIBUTES = (
    *("max_epochs", "min_epochs", "max_steps", "min_steps", "precision", "accumulate_grad_batches"),
    *("gradient_clip_val", "gradient_clip_algorithm", "num_devices", "num_nodes", "world_size"),
    *("limit_train_batches", "limit_val_batches", "overfit_batches", "val_check_interval", "check_val_every_n_epoch"),
    *("fast_dev_run", "reload_dataloaders_every_n_epochs", "log_every_n_steps"),
)
PRIMITIVE_TYPES = (str, int, float, bool, type(None))


def collect_settings(trainer: Any, module: Any) -> dict[str, object]:
    """Return the settings to record; a setting whose reading raises is left out.

    Args:
        trainer: Trainer at the start of training.
        module: LightningModule of the Trainer.
    """
    parts: dict[str, Callable[[], object]] = {
        "framework": partial(_framework_versions, trainer),
        "model": partial(_model_settings, module),
        "hyperparameters": lambda: module.hparams,
        "data_hyperparameters": lambda: trainer.datamodule.hparams if trainer.datamodule else None,
        "optimizers": lambda: _read_each(_optimizer_settings, trainer.optimizers),
        "schedulers": lambda: _read_each(_scheduler_settings, trainer.lr_scheduler_configs),
        "data": partial(_data_settings, trainer),
        "trainer": partial(_trainer_settings, trainer),
        "callbacks": lambda: _read_each(_callback_settings, trainer.callbacks),
        "seeds": _seeds,
    }
    settings = {name: _read_or_none(name, part) for name, part in parts.items()}
    return {name: value for name, value in settings.items() if value is not None}


def _read_each(read: Callable[[Any], dict[str, object]], values: Iterable[Any]) -> list[object]:
    """Return the settings of each object; of one that cannot be read, the name of its class."""
    return [_read_or_none(type(each).__name__, partial(read, each)) or {"name": type(each).__name__} for each in values]


def _read_or_none(name: str, part: Callable[[], object]) -> object:
    """Return a setting; None if it is empty or cannot be read."""
    try:
        return part() or None
    except Exception:
        log.debug("Failed to read the setting %s of the fit.", name, exc_info=True)
        return None


def _framework_versions(trainer: Any) -> dict[str, str]:
    import sys

    names = (type(trainer).__module__.partition(".")[0], "torch")
    return {name: str(sys.modules[name].__version__) for name in names if hasattr(sys.modules.get(name), "__version__")}


def _model_settings(module: Any) -> dict[str, object]:
    parameters = list(module.parameters())
    layers = [
        {"name": name, "type": type(layer).__name__, "parameters": sum(each.numel() for each in layer.parameters())}
        for name, layer in module.named_modules()
        if name and not next(layer.children(), None)
    ]
    return {
        "type": f"{type(module).__module__}.{type(module).__qualname__}",
        "parameters": sum(each.numel() for each in parameters),
        "trainable_parameters": sum(each.numel() for each in parameters if each.requires_grad),
        "layers": layers,
    }


def _optimizer_settings(optimizer: Any) -> dict[str, object]:
    optimizer = getattr(optimizer, "optimizer", optimizer)  # a LightningOptimizer wraps one
    groups = [
        _select_primitives({key: value for key, value in each.items() if key != "params"})
        for each in optimizer.param_groups
    ]
    settings = _select_primitives(optimizer.defaults)
    return {"name": type(optimizer).__name__, **settings, **({"groups": groups} if len(groups) > 1 else {})}


def _scheduler_settings(config: Any) -> dict[str, object]:
    scheduler = config.scheduler
    schedule = {name: getattr(config, name, None) for name in ("interval", "frequency", "monitor", "name")}
    return {"name": type(scheduler).__name__, "how": schedule, **_select_primitives(vars(scheduler))}


def _callback_settings(callback: Any) -> dict[str, object]:
    attributes = {name: value for name, value in _select_primitives(vars(callback)).items() if value not in (None, "")}
    return {"name": type(callback).__name__, **attributes}


def _data_settings(trainer: Any) -> dict[str, object]:
    loader = trainer.train_dataloader
    dataset: Any = getattr(loader, "dataset", None)
    settings = {
        "batch_size": getattr(loader, "batch_size", None),
        "batches_per_epoch": trainer.num_training_batches,
        "validation_batches": trainer.num_val_batches,
        "num_workers": getattr(loader, "num_workers", None),
        "sampler": _type_name(getattr(loader, "sampler", None)),
        "dataset": _type_name(dataset),
        "samples": _read_or_none("samples", lambda: len(dataset)) if hasattr(dataset, "__len__") else None,
    }
    return {name: value for name, value in settings.items() if value is not None}


def _trainer_settings(trainer: Any) -> dict[str, object]:
    read = {name: _read_or_none(name, partial(getattr, trainer, name, None)) for name in TRAINER_ATTRIBUTES}
    settings = {name: value for name, value in read.items() if value is not None}
    return {**settings, "strategy": _type_name(trainer.strategy), "accelerator": _type_name(trainer.accelerator)}


def _seeds() -> dict[str, object]:
    import torch

    seeds = {"PL_GLOBAL_SEED": os.environ.get("PL_GLOBAL_SEED"), "torch": torch.initial_seed()}
    return {name: value for name, value in seeds.items() if value is not None}


def _select_primitives(values: Mapping[str, object]) -> dict[str, object]:
    """Return the public attributes with plain values or short lists of them."""
    return {name: value for name, value in values.items() if not name.startswith("_") and _is_primitive(value)}


def _is_primitive(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) <= 20 and all(isinstance(each, PRIMITIVE_TYPES) for each in value)
    return isinstance(value, PRIMITIVE_TYPES)


def _type_name(value: object) -> str | None:
    return None if value is None else type(value).__name__
