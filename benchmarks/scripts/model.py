"""A minimal network, so that the time that a tracker adds to a step is measurable."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

__all__ = ["FIGURES", "METRICS", "Tiny", "batches", "create_trainer", "time_call", "write_figures"]

METRICS = ("loss", "alpha", "beta", "gamma")
"""Metrics that are logged in each step."""

FIGURES = "figures.json"
"""Name of the file to which a script writes its figures."""

torch.set_num_threads(1)


class Tiny(LightningModule):
    """Logs four metrics per step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 1)
        self.step_starts: list[float] = []
        """Start time of each step."""

    def training_step(self, batch: list[Tensor]) -> Tensor:
        self.step_starts.append(perf_counter())
        loss = self.layer(batch[0]).square().mean()
        self.log_dict(dict.fromkeys(METRICS, loss.detach()), on_step=True, on_epoch=False)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.001)


def batches(number: int) -> DataLoader[Any]:
    """Return a loader with this number of batches of four samples."""
    return DataLoader(TensorDataset(torch.ones(number * 4, 8)), batch_size=4)


def create_trainer(folder: Path, **options: Any) -> Trainer:
    """Return a Trainer without output, logger and checkpoints, unless the options enable them."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return Trainer(**{"accelerator": "cpu", "logger": False, "default_root_dir": folder, **quiet, **options})


def time_call(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = perf_counter()
    call()
    return perf_counter() - start


def write_figures(folder: Path, **figures: object) -> None:
    """Write the figures for the process that started this one."""
    (folder / FIGURES).write_text(json.dumps(figures))
