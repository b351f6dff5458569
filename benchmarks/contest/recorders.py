"""The recorders, each used as its own documentation shows it: what a Trainer is given, and what follows a fit.

What stands after a ``yield`` is what a user's script says after its fit, so it is not reached when the fit fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

__all__ = ["MODULES", "NOTHING", "OURS", "OWN", "PLAIN", "RECORDERS", "Arguments", "settings"]

NOTHING, PLAIN, OWN = "nothing", "torch.save", "ours, best+last"
"""Of checkpoints: none at all; the state saved by hand; ours where the Trainer has no ModelCheckpoint."""

Arguments = dict[str, Any]
"""For the Trainer."""

OURS = ("ours", "ours by step", "ours alone")
"""Ours, with metrics by epoch, and with those of each step too, and with an execution of its own."""

MODULES = {
    "ours": "deriva_ml",
    "mlflow autolog": "mlflow",
    "mlflow logger": "mlflow",
    "wandb": "wandb",
    "dvclive": "dvclive",
    "aim": "aim",
}
"""What a script that uses the recorder imports; Lightning's own CSVLogger is not a recorder by itself."""


def settings(folder: Path) -> dict[str, str]:
    """The environment variables with which nothing is sent anywhere, and all that is kept lies in a folder."""
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
def _bare(folder: Path, saved: bool) -> Iterator[Arguments]:  # noqa: ARG001 - all have the same arguments
    yield {}


@contextmanager
def _ours(folder: Path, saved: bool, log_every_n_steps: int | None = None) -> Iterator[Arguments]:
    from benchmarks.places import configuration, open_catalog
    from deriva_ml_lightning import DerivaMLCallback

    with open_catalog(folder / "home").create_execution(configuration()) as exe:
        yield {"callbacks": [_callback(DerivaMLCallback, exe, saved=saved, log_every_n_steps=log_every_n_steps)]}


@contextmanager
def _ours_by_step(folder: Path, saved: bool) -> Iterator[Arguments]:
    with _ours(folder, saved, log_every_n_steps=1) as arguments:
        yield arguments


@contextmanager
def _ours_alone(folder: Path, saved: bool) -> Iterator[Arguments]:
    from benchmarks.places import configuration, open_catalog
    from deriva_ml_lightning import DerivaMLCallback

    own = {"ml": open_catalog(folder / "home"), "configuration": configuration()}
    yield {"callbacks": [_callback(DerivaMLCallback, saved=saved, log_every_n_steps=1, **own)]}


def _callback(of: Callable[..., Any], *given: Any, saved: bool, **options: Any) -> Any:
    return of(*given, checkpoints=None if saved else "none", **options)


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

    # its default, a folder of files, is refused by mlflow 3.17
    address = os.environ["MLFLOW_TRACKING_URI"]
    yield {"logger": MLFlowLogger(tracking_uri=address, log_model="all" if saved else False), "log_every_n_steps": 1}


@contextmanager
def _wandb(folder: Path, saved: bool) -> Iterator[Arguments]:
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    # WANDB_MODE keeps it offline in any case; told so itself, it refuses to keep checkpoints
    logger = WandbLogger(save_dir=folder, offline=not saved, log_model="all" if saved else False)
    yield {"logger": logger, "log_every_n_steps": 1}
    wandb.finish()


@contextmanager
def _dvclive(folder: Path, saved: bool) -> Iterator[Arguments]:
    from dvclive.lightning import DVCLiveLogger

    logger = DVCLiveLogger(dir=str(folder / "dvclive"), save_dvc_exp=False, log_model="all" if saved else False)
    yield {"logger": logger, "log_every_n_steps": 1}


@contextmanager
def _aim(folder: Path, saved: bool) -> Iterator[Arguments]:  # noqa: ARG001 - its logger keeps no checkpoints
    from aim.pytorch_lightning import AimLogger

    yield {"logger": AimLogger(repo=str(folder)), "log_every_n_steps": 1}


RECORDERS: dict[str, Callable[[Path, bool], AbstractContextManager[Arguments]]] = {
    "bare": _bare,
    "ours": _ours,
    "ours by step": _ours_by_step,
    "ours alone": _ours_alone,
    "lightning csv": _csv,
    "mlflow autolog": _mlflow_autolog,
    "mlflow logger": _mlflow_logger,
    "wandb": _wandb,
    "dvclive": _dvclive,
    "aim": _aim,
}
"""By name: called with the folder for what is kept, and whether checkpoints are kept too."""
