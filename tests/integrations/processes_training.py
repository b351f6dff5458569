"""A training of two processes, however they are launched, for a test to run."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
from contextlib import nullcontext
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_lightning import DerivaMLCallback

words = argparse.ArgumentParser()
words.add_argument("package")
words.add_argument("--strategy", default="ddp")
words.add_argument("--nodes", type=int, default=1, help="how many nodes share the two processes")
words.add_argument("--runs", type=int, default=1, help="how many executions, one after the other")
words.add_argument("--own", action="store_true", help="let the callback make its execution")
words.add_argument("--fail", default=None, help="the rank that fails in its second epoch, or all")
words.add_argument("--by", default=None, help="fail by a signal instead of an exception")
asked = words.parse_args()
lightning = importlib.import_module(asked.package)


def fail() -> None:
    if asked.by:
        os.kill(os.getpid(), getattr(signal, asked.by))
    else:
        raise ValueError(f"No data on rank {asked.fail}")


class Model(lightning.LightningModule):
    """One weight, and metrics that every rank must compute."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: Any, _: int) -> Any:
        if asked.fail in (str(self.global_rank), "all") and self.current_epoch == 1:
            fail()
        loss = (self.weight * batch[0]).mean()
        self.log("loss", torch.ones(()), on_step=True, on_epoch=True, sync_dist=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("rank", float(self.global_rank), sync_dist=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)


if __name__ == "__main__":
    workflow = Workflow(
        name="Processes", workflow_type="Training", url="https://example.org/processes.py", checksum="p"
    )
    configuration = ExecutionConfiguration(workflow=workflow)
    ml = DerivaML()
    for _ in range(asked.runs):
        with nullcontext() if asked.own else ml.create_execution(configuration) as execution:
            made = {"ml": ml, "configuration": configuration} if asked.own else {"execution": execution}
            callback = DerivaMLCallback(**made)
            trainer = lightning.Trainer(
                max_epochs=2,
                accelerator="cpu",
                devices=2 // asked.nodes,
                num_nodes=asked.nodes,
                strategy=asked.strategy,
                callbacks=[callback],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(Model(), DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=2))
            if execution is not None:
                # by one write: the other process says things too
                said = f"\nrank {trainer.global_rank} {execution.execution_rid} {not execution.is_rank_zero}\n"
                os.write(1, said.encode())
