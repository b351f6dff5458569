"""Helpers for tests with Lightning: a small network, its data, and Trainers without output."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core.execution import Execution

IGNORED = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),  # two workers are not faster with 32 rows
    pytest.mark.filterwarnings("ignore:The number of training batches"),  # advises to log more often
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but"),  # some tests need no validation
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)`"),  # Lightning 2.6 with torch 2.13
]


def execution_callback(execution: Execution, **options: Any) -> Any:
    from deriva_ml_lightning import DerivaMLCallback

    return DerivaMLCallback(execution, **options)


def configuration() -> ExecutionConfiguration:
    """Return a configuration for an owned execution, with a workflow that needs no commit."""
    workflow = Workflow(name="Own", workflow_type="Training", url="https://example.org/own.py", checksum="o1")
    return ExecutionConfiguration(workflow=workflow)


def own_callback(ml: DerivaML, **options: Any) -> Any:
    """Return a callback that owns its execution."""
    from deriva_ml_lightning import DerivaMLCallback

    return DerivaMLCallback(ml=ml, configuration=configuration(), **options)


def create_model(package: ModuleType, **hooks: Callable[..., None]) -> Any:
    """Return a small network with dropout, so that any use of the random state shows; `hooks` replace its methods."""

    class Model(package.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)
            )

        def training_step(self, batch: Any, _: int) -> Any:
            loss = torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1])
            self.log("loss", loss, on_step=True, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), 0.01)

    return type("Model", (Model,), hooks)()


def training_loader(shuffle: bool = True) -> Any:
    points = torch.linspace(-1, 1, 96).reshape(32, 3)
    order = torch.Generator().manual_seed(1)
    return DataLoader(TensorDataset(points, points.sum(1, keepdim=True)), 8, shuffle=shuffle, generator=order)


def validation_loader() -> Any:
    return training_loader(shuffle=False)


def create_trainer(package: ModuleType, *callbacks: Any, **options: Any) -> Any:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return package.Trainer(
        callbacks=list(callbacks), **{"max_epochs": 3, "enable_checkpointing": False} | quiet | options
    )


def list_progress(execution: Execution) -> list[Any]:
    return [status.progress for status in execution.list_statuses() if status.progress]
