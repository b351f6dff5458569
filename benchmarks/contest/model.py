"""A network that is nearly nothing, so that what a recorder adds to a step shows."""

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

__all__ = ["FIGURES", "METRICS", "Tiny", "batches", "timed", "told", "trainer"]

METRICS = ("loss", "alpha", "beta", "gamma")
"""What is logged each step."""

FIGURES = "figures.json"
"""The file in its folder in which a script tells what it measured."""

torch.set_num_threads(1)


class Tiny(LightningModule):
    """Logs four metrics a step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 1)
        self.begun: list[float] = []
        """When each step began."""

    def training_step(self, batch: list[Tensor]) -> Tensor:
        self.begun.append(perf_counter())
        loss = self.layer(batch[0]).square().mean()
        self.log_dict(dict.fromkeys(METRICS, loss.detach()), on_step=True, on_epoch=False)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.001)


def batches(number: int) -> DataLoader[Any]:
    """As many batches of four samples."""
    return DataLoader(TensorDataset(torch.ones(number * 4, 8)), batch_size=4)


def trainer(folder: Path, **given: Any) -> Trainer:
    """A Trainer that does nothing beside training but what it is given."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return Trainer(**{"accelerator": "cpu", "logger": False, "default_root_dir": folder, **quiet, **given})


def timed(call: Callable[[], object]) -> float:
    """The seconds that a call takes."""
    start = perf_counter()
    call()
    return perf_counter() - start


def told(folder: Path, **figures: object) -> None:
    """Tell what was measured, to the process that began this one."""
    (folder / FIGURES).write_text(json.dumps(figures))
