"""Trackers as their own documentation uses them: context managers that yield arguments for a Trainer.

Code after a ``yield`` is what a user's script executes after a fit, so it is not reached if the fit fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "KEPT",
    "MODULES",
    "NOTHING",
    "OWN",
    "OWN_RECORDERS",
    "PLAIN",
    "RECORDERS",
    "Arguments",
    "isolated_environment",
]

NOTHING, PLAIN, OWN = "nothing", "torch.save", "deriva-ml, best+last"
"""Kinds of checkpoints: none; saved by hand; saved by this software, with a Trainer without ModelCheckpoint."""

KEPT = "deriva-ml, ModelCheckpoint"
"""Checkpoints of a ModelCheckpoint in the user's folder, recorded by this software."""

Arguments = dict[str, Any]
"""Arguments of a Trainer."""

OWN_RECORDERS = ("deriva-ml", "deriva-ml by step", "deriva-ml alone")
"""This software with metrics of each epoch, with those of each step too, and with a callback-created execution."""

MODULES = {
    "deriva-ml": "deriva_ml",
    "mlflow autolog": "mlflow",
    "mlflow logger": "mlflow",
    "wandb": "wandb",
    "dvclive": "dvclive",
    "aim": "aim",
}
"""The module that a script with the tracker imports. Lightning's CSVLogger needs none of its own."""


def isolated_environment(folder: Path) -> dict[str, str]:
    """Return environment variables that make trackers store everything in a folder and send nothing."""
    return {
        "HOME": str(folder),
        "DERIVA_ML_HOME": str(folder / "deriva-ml"),
        "AIM_UI_TELEMETRY_ENABLED": "0",
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.sqlite'}",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
    }


@contextmanager
def _bare(folder: Path, saved: bool) -> Iterator[Arguments]:  # noqa: ARG001 - all have the same signature
    yield {}


@contextmanager
def _deriva_ml(folder: Path, saved: bool, log_every_n_steps: int | None = None) -> Iterator[Arguments]:
    from benchmarks.fixtures import execution_configuration, open_catalog
    from deriva_ml_lightning import DerivaMLCallback

    with open_catalog(folder / "home").create_execution(execution_configuration()) as exe:
        yield {"callbacks": [_create_callback(DerivaMLCallback, exe, saved=saved, log_every_n_steps=log_every_n_steps)]}


@contextmanager
def _deriva_ml_by_step(folder: Path, saved: bool) -> Iterator[Arguments]:
    with _deriva_ml(folder, saved, log_every_n_steps=1) as arguments:
        yield arguments


@contextmanager
def _deriva_ml_alone(folder: Path, saved: bool) -> Iterator[Arguments]:
    from benchmarks.fixtures import execution_configuration, open_catalog
    from deriva_ml_lightning import DerivaMLCallback

    options = {"ml": open_catalog(folder / "home"), "configuration": execution_configuration()}
    yield {"callbacks": [_create_callback(DerivaMLCallback, saved=saved, log_every_n_steps=1, **options)]}


def _create_callback(cls: Callable[..., Any], *args: Any, saved: bool, **options: Any) -> Any:
    return cls(*args, checkpoints=None if saved else "none", **options)


@contextmanager
def _csv(folder: Path, saved: bool) -> Iterator[Arguments]:  # noqa: ARG001
    from pytorch_lightning.loggers import CSVLogger

    yield {"logger": CSVLogger(folder), "log_every_n_steps": 1}


@contextmanager
def _mlflow_autolog(folder: Path, saved: bool) -> Iterator[Arguments]:  # noqa: ARG001
    import mlflow

    mlflow.pytorch.autolog(log_every_n_step=1, log_models=False, checkpoint=saved)
    yield {}


@contextmanager
def _mlflow_logger(folder: Path, saved: bool) -> Iterator[Arguments]:  # noqa: ARG001
    from pytorch_lightning.loggers import MLFlowLogger

    # mlflow 3.17 rejects the logger's default, a folder of files
    address = os.environ["MLFLOW_TRACKING_URI"]
    yield {"logger": MLFlowLogger(tracking_uri=address, log_model="all" if saved else False), "log_every_n_steps": 1}


@contextmanager
def _wandb(folder: Path, saved: bool) -> Iterator[Arguments]:
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    # WANDB_MODE keeps it offline in any case; with offline=True, the logger refuses to store checkpoints
    logger = WandbLogger(save_dir=folder, offline=not saved, log_model="all" if saved else False)
    yield {"logger": logger, "log_every_n_steps": 1}
    wandb.finish()


@contextmanager
def _dvclive(folder: Path, saved: bool) -> Iterator[Arguments]:
    from dvclive.lightning import DVCLiveLogger

    logger = DVCLiveLogger(dir=str(folder / "dvclive"), save_dvc_exp=False, log_model="all" if saved else False)
    yield {"logger": logger, "log_every_n_steps": 1}


@contextmanager
def _aim(folder: Path, saved: bool) -> Iterator[Arguments]:  # noqa: ARG001 - its logger stores no checkpoints
    from aim.pytorch_lightning import AimLogger

    yield {"logger": AimLogger(repo=str(folder)), "log_every_n_steps": 1}


RECORDERS: dict[str, Callable[[Path, bool], AbstractContextManager[Arguments]]] = {
    "bare": _bare,
    "deriva-ml": _deriva_ml,
    "deriva-ml by step": _deriva_ml_by_step,
    "deriva-ml alone": _deriva_ml_alone,
    "lightning csv": _csv,
    "mlflow autolog": _mlflow_autolog,
    "mlflow logger": _mlflow_logger,
    "wandb": _wandb,
    "dvclive": _dvclive,
    "aim": _aim,
}
"""The trackers by name; the arguments are the folder for their data, and whether to store checkpoints."""
