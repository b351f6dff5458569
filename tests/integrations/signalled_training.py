"""A training that gets a signal in its third epoch, for a test to run."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_lightning import DerivaMLCallback

lightning = importlib.import_module(sys.argv[1])


class Model(lightning.LightningModule):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: Any, _: int) -> Any:
        if self.current_epoch == 2:
            os.kill(os.getpid(), getattr(signal, sys.argv[2]))
        return (self.weight * batch[0]).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)


signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a shell's background begins with it ignored
workflow = Workflow(name="Signalled", workflow_type="Training", url="https://example.org/signal.py", checksum="s")
with DerivaML().create_execution(ExecutionConfiguration(workflow=workflow)) as execution:
    print(execution.execution_rid, flush=True)
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[DerivaMLCallback(execution, checkpoints="all")],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Model(), DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=4))
