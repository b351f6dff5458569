"""Program of a test: a training of two processes, with any launcher."""

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

parser = argparse.ArgumentParser()
parser.add_argument("package")
parser.add_argument("--strategy", default="ddp")
parser.add_argument("--nodes", type=int, default=1, help="how many nodes share the two processes")
parser.add_argument("--runs", type=int, default=1, help="how many executions, one after the other")
parser.add_argument("--own", action="store_true", help="let the callback make its execution")
parser.add_argument("--fail", default=None, help="the rank that fails in its second epoch, or all")
parser.add_argument("--by", default=None, help="fail by a signal instead of an exception")
args = parser.parse_args()
lightning = importlib.import_module(args.package)


def fail() -> None:
    if args.by:
        os.kill(os.getpid(), getattr(signal, args.by))
    else:
        raise ValueError(f"No data on rank {args.fail}")


class Model(lightning.LightningModule):
    """A model with one weight, and metrics that every rank must compute."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: Any, _: int) -> Any:
        if args.fail in (str(self.global_rank), "all") and self.current_epoch == 1:
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
    for _ in range(args.runs):
        with nullcontext() if args.own else ml.create_execution(configuration) as execution:
            options = {"ml": ml, "configuration": configuration} if args.own else {"execution": execution}
            callback = DerivaMLCallback(**options)
            trainer = lightning.Trainer(
                max_epochs=2,
                accelerator="cpu",
                devices=2 // args.nodes,
                num_nodes=args.nodes,
                strategy=args.strategy,
                callbacks=[callback],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(Model(), DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=2))
            if execution is not None:
                # in one write, since the other process prints too
                line = f"\nrank {trainer.global_rank} {execution.execution_rid} {not execution.is_rank_zero}\n"
                os.write(1, line.encode())
