"""Trainings that end as scripts do, by leaving the interpreter, each in a process forked when all is imported.

Its arguments: how many, and for how many seconds each may last. The exit codes go to standard output, as JSON: below 0
for signals, None for a process that did not end in time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import pytorch_lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from deriva_ml_lightning import DerivaMLCallback


class Model(pytorch_lightning.LightningModule):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: Any, _: int) -> Any:
        loss = (self.weight * batch[0]).mean()
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)


def train() -> None:
    """A fit as the README shows it."""
    pytorch_lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[DerivaMLCallback(log_every_n_steps=1, curves=False)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(Model(), DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=4))


def code_of(child: int, seconds: float) -> int | None:
    """How a process ended; one that does not is killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


if __name__ == "__main__":
    codes = []
    for _ in range(int(sys.argv[1])):
        if (child := os.fork()) == 0:
            train()
            sys.exit(0)  # by way of the interpreter's own end, threads and all
        codes.append(code_of(child, float(sys.argv[2])))
    print(json.dumps(codes))
