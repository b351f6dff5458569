"""A process until its first record, without a training: run as a committed script, ``train.py <recorder> <folder>``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic


def _ours(_: Path) -> None:
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


FIRST: dict[str, Callable[[Path], None]] = {
    "ours": _ours,
    "mlflow logger": _mlflow,
    "wandb": _wandb,
    "dvclive": _dvclive,
    "aim": _aim,
}


if __name__ == "__main__":
    FIRST[sys.argv[1]](Path(sys.argv[2]))
    (Path(sys.argv[2]) / "figures.json").write_text(f'{{"first": {monotonic()}}}')
    os._exit(0)  # what the end of the process takes is measured elsewhere
