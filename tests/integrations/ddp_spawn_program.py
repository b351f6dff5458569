"""Program of a test: a training in two spawned processes."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_lightning import DerivaMLCallback

lightning = importlib.import_module(sys.argv[1])


class Model(lightning.LightningModule):
    """A model with one weight, and metrics that every rank must compute."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: Any, _: int) -> Any:
        loss = (self.weight * batch[0]).mean()
        self.log("loss", torch.ones(()), on_step=True, on_epoch=True, sync_dist=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("rank", float(self.global_rank), sync_dist=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)


if __name__ == "__main__":
    workflow = Workflow(name="DDP", workflow_type="Training", url="https://example.org/ddp.py", checksum="d")
    with DerivaML().create_execution(ExecutionConfiguration(workflow=workflow)) as execution:
        trainer = lightning.Trainer(
            max_epochs=2,
            accelerator="cpu",
            devices=2,
            strategy="ddp_spawn",
            callbacks=[DerivaMLCallback(execution, checkpoints="all")],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Model(), DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=2))
    print(execution.execution_rid)
