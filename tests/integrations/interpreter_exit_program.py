"""Program of a test: trainings that end with the interpreter, each in a forked process.

The arguments are the number of trainings and the maximum seconds of each. The exit codes are printed as JSON: negative
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
    """A model with one weight."""

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
    """Run a fit as in the README."""
    pytorch_lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[DerivaMLCallback(log_every_n_steps=1, curves=False)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(Model(), DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=4))


def wait_for_exit(child: int, seconds: float) -> int | None:
    """Return the exit code of a process; kill it after a timeout."""
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
            sys.exit(0)  # runs the interpreter's shutdown, including threads
        codes.append(wait_for_exit(child, float(sys.argv[2])))
    print(json.dumps(codes))
