"""Time until a tracker's first record, without a training; committed and run as ``train.py <tracker> <folder>``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic


def _deriva_ml(_: Path) -> None:
    from deriva_ml import DerivaML, ExecutionConfiguration, Status

    ml = DerivaML()
    workflow = ml.create_workflow("Benchmark", "Training")
    ml.create_execution(ExecutionConfiguration(workflow=workflow)).__enter__().update_status(Status.running, "loss=1")


def _mlflow(_: Path) -> None:
    import mlflow

    mlflow.start_run()
    mlflow.log_metric("loss", 1.0)


def _wandb(folder: Path) -> None:
    import wandb

    wandb.init(dir=folder).log({"loss": 1.0})


def _dvclive(folder: Path) -> None:
    from dvclive import Live

    live = Live(dir=str(folder / "dvclive"), save_dvc_exp=False)
    live.log_metric("loss", 1.0)
    live.next_step()


def _aim(folder: Path) -> None:
    from aim import Run

    Run(repo=str(folder)).track(1.0, name="loss")


FIRST_RECORD: dict[str, Callable[[Path], None]] = {
    "deriva-ml": _deriva_ml,
    "mlflow logger": _mlflow,
    "wandb": _wandb,
    "dvclive": _dvclive,
    "aim": _aim,
}


if __name__ == "__main__":
    FIRST_RECORD[sys.argv[1]](Path(sys.argv[2]))
    (Path(sys.argv[2]) / "figures.json").write_text(f'{{"first": {monotonic()}}}')
    os._exit(0)  # the time to exit is measured by other scripts
